"""Attention heads of ranks: even or not, joined again, and what kernels pad them to."""

from __future__ import annotations

import pytest
import torch
from multi_rank import index_cases as cases

from dsa_exec import sparse_mla_decode
from dsa_exec.core.errors import RangeError
from dsa_exec.core.hardware import Capabilities
from dsa_exec.dispatch.registry import backends
from dsa_exec.runtime.distributed import NoProcessGroup
from dsa_exec.runtime.distributed.head_split import HeadSplit, kernel_heads

HOPPER = Capabilities("cuda", "sm90", "2.11.0", "3.6.0", multiprocessors=132)
BLACKWELL = Capabilities("cuda", "sm100", "2.11.0", "3.6.0", multiprocessors=148)


@pytest.mark.parametrize(
    ("heads", "world", "counts"),
    [(128, 8, (16,) * 8), (128, 1, (128,)), (128, 3, (43, 43, 42)), (10, 4, (3, 3, 2, 2)), (4, 4, (1, 1, 1, 1))],
)
def test_every_head_has_one_rank(heads, world, counts):
    """In order; where the ranks do not divide the heads, the first ones have one more."""
    split = HeadSplit(heads, world)
    assert split.counts == counts
    owned = [list(range(heads))[split.of(rank)] for rank in range(world)]
    assert [len(it) for it in owned] == list(counts)
    assert [head for own in owned for head in own] == list(range(heads))


def test_what_cannot_be_split_is_said():
    """More ranks than heads, no heads, no such rank: with what is allowed."""
    with pytest.raises(RangeError, match="HeadSplit: world is 16; wanted at most 8, so that each rank has one"):
        HeadSplit(8, 16)
    with pytest.raises(RangeError, match="HeadSplit: heads is 0; wanted an integer of at least 1"):
        HeadSplit(0, 1)
    with pytest.raises(RangeError, match="HeadSplit: rank is 4; wanted an integer from 0 to 3"):
        HeadSplit(8, 4).of(4)


@pytest.mark.parametrize(("size", "world", "heads"), [("two", 2, 8), ("two", 2, 5), ("four", 4, 6)])
def test_heads_of_all_ranks_are_those_of_one_process(size, world, heads, request):
    """Outputs and log-sum-exp, with sinks; uneven counts and no row. To the bit as one process with a rank's heads.

    torch multiplies other numbers of heads in other orders: as one process with all heads, up to rounding.
    """
    q, cache, slots, sink = cases.decode_inputs(heads)
    split, options = HeadSplit(heads, world), {"sm_scale": 0.1}
    parts = [
        sparse_mla_decode(q[:, own], cache, slots, attn_sink=sink[own], **options)
        for own in map(split.of, range(world))
    ]
    out, lse = (torch.cat(it, 1) for it in zip(*parts, strict=True))
    by_rank = request.getfixturevalue(size).run(cases.decode_heads, heads, world)
    assert by_rank == [(torch.bfloat16, out.float().tolist(), lse.tolist(), (0, heads, 512))] * world
    whole_out, whole_lse = sparse_mla_decode(q, cache, slots, attn_sink=sink, **options)
    torch.testing.assert_close(out, whole_out, rtol=2**-7, atol=2**-9)
    torch.testing.assert_close(lse, whole_lse)


def test_what_is_not_a_ranks_own_is_refused(two):
    """Another number of heads or of ranks, whole numbers, no tensor."""
    for rank, words in enumerate(two.run(cases.join_wrong)):
        own = (4, 3)[rank]
        wanted = f"wanted [t, {own}, ...]: rank {rank} of 2 has {own} of 7 heads"
        assert words == [
            f"ShapeError: HeadSplit.join: values has shape [3, 7, 5]; {wanted}",
            f"ShapeError: HeadSplit.join: values has shape [3]; {wanted}",
            "DtypeError: HeadSplit.join: values is int32; wanted a tensor of float32, bfloat16 or float16",
            "DtypeError: HeadSplit.join: values is NoneType; wanted a tensor of float32, bfloat16 or float16",
            "RangeError: HeadSplit.join: group has 2 ranks; wanted 3, which the heads are split among",
        ]


def test_joining_needs_a_process_group():
    """One process has no other's heads."""
    with pytest.raises(NoProcessGroup, match=r"HeadSplit.join\(\) needs a process group"):
        HeadSplit(8, 2).join(torch.ones(1, 4, 8))


@pytest.mark.parametrize(
    ("heads", "hw", "prefill", "decode"),
    [
        (8, HOPPER, (16, 16, 8, 64), (16, 16, 8, 64)),
        (16, HOPPER, (16, 16, 16, 64), (16, 16, 16, 64)),
        (43, HOPPER, (64, 48, 43, 64), (64, 64, 43, 64)),
        (128, HOPPER, (128, 128, 128, 128), (128, 128, 128, 128)),
        (16, BLACKWELL, (16, 16, 16, 128), (16, 16, 16, 64)),
        (200, HOPPER, (256, 208, 200), (256, 224, 200)),
    ],
)
def test_kernels_work_on_more_heads_than_a_rank_has(heads, hw, prefill, decode):
    """gluon, triton, torch and flash_mla: what is padded costs as much as what is not."""
    found = kernel_heads(heads, hw)
    assert tuple(found["sparse_mla_prefill"].values()) == prefill
    assert tuple(found["sparse_mla_decode"].values()) == decode
    with pytest.raises(RangeError, match="kernel_heads: heads is 0"):
        kernel_heads(0, hw)


def test_every_backend_of_attention_is_told_of():
    """A backend that is added has to say what it pads to."""
    assert {op: set(names) for op, names in kernel_heads(16, HOPPER).items()} == {
        op: set(backends(op)) for op in ("sparse_mla_prefill", "sparse_mla_decode")
    }
