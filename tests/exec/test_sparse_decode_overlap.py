"""Sparse decode: kernels that start while others end on Hopper, and how slices of rows are put together."""

from __future__ import annotations

import math

import pytest
import torch

from dsa_config import settings
from dsa_exec import sparse_mla_decode
from dsa_exec.caches.samples import random_mla_cache
from dsa_exec.core.launch import chosen_launch
from dsa_exec.dispatch.contract import picks
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops.sparse_mla_decode.kernels.combine import Parts, combine
from dsa_exec.ops.sparse_mla_decode.launch import CombineLaunch, combine_launch, hopper_launch

K, SCALE = 2048, 576**-0.5
ON_HOPPER = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0), reason="needs an sm90 device"
)


@pytest.mark.parametrize(
    ("rows", "heads", "overlap"),
    [
        *((1, 16, True), (2, 16, True), (4, 8, False), (4, 16, False), (16, 16, False), (32, 16, True)),
        *((1, 128, False), (8, 64, False), (32, 64, True), (128, 128, True)),
    ],
)
def test_kernels_overlap_where_it_was_measured_to_help(rows, heads, overlap):
    """With few slices; with many where their programs leave half of the device free, and few put them together."""
    assert hopper_launch(rows, heads, K, multiprocessors=132).overlap == overlap


@pytest.mark.parametrize("rows", [1, 32, 128])
def test_kernels_overlap_unless_told_otherwise(rows):
    """Whatever the number of rows; `kernel_launch` turns it off."""
    assert hopper_launch(rows, 16, K, multiprocessors=132).overlap
    with settings.override(kernel_launch="sparse_mla_decode.gluon.overlap=0"):
        launch = chosen_launch("sparse_mla_decode", "gluon", hopper_launch(rows, 16, K, multiprocessors=132))
    assert not launch.overlap


@pytest.mark.parametrize(
    ("places", "slices", "launch"),
    [
        (16, 32, CombineLaunch(1, 128, 4)),
        (16 * 16, 8, CombineLaunch(1, 128, 4)),
        (16 * 64, 8, CombineLaunch(1, 512, 4)),
        (32 * 8, 4, CombineLaunch(2, 512, 4)),
        (32 * 16, 4, CombineLaunch(4, 512, 8)),
        (32 * 128, 2, CombineLaunch(8, 512, 8)),
        (4 * 128, 64, CombineLaunch(1, 512, 4)),
        (2, 5, CombineLaunch(1, 128, 2)),
    ],
)
def test_few_slices_are_put_together_by_a_program_a_multiprocessor(places, slices, launch):
    """About 128 programs, unless that leaves one more than 32 values a thread; of many slices one place a program."""
    assert combine_launch(places, slices, 512) == launch


@pytest.mark.parametrize("channels", [512, 24])
@pytest.mark.parametrize(("rows", "heads", "slices"), [(3, 3, 5), (37, 7, 4), (9, 16, 8), (1, 1, 64)])
@pytest.mark.parametrize("has_sink", [False, True])
def test_slices_put_together_are_the_row(rows, heads, slices, channels, has_sink):
    """Programs of several heads, the last of which has fewer; a row of which no slice has a key is zeros and -inf."""
    generator = torch.Generator().manual_seed(slices)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    sums = torch.randn(rows, slices, heads, channels, generator=generator).to(device)
    tops = torch.randn(rows, slices, heads, generator=generator).to(device) * 9
    tops[0, 1:] = -torch.inf
    tops[-1, :, -1] = -torch.inf
    sums.masked_fill_((tops == -torch.inf)[..., None], 0.0)
    sink = torch.randn(heads, generator=generator).to(device) if has_sink else None
    out = torch.full((rows, heads, channels), torch.nan, device=device)
    lse = torch.full((rows, heads), torch.nan, device=device)
    combine(Parts(sums, tops), sink, out, lse, overlap=False)
    naturals = tops * math.log(2)
    wanted_lse = naturals.logsumexp(1)
    all_tops = wanted_lse if sink is None else torch.logaddexp(wanted_lse, sink[None, :])
    wanted = (sums * (naturals - all_tops[:, None]).exp().nan_to_num(0)[..., None]).sum(1)
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-5, atol=1e-5)
    wanted[-1, -1] = 0
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)


def decoded(arguments, **launch):
    """The op on the Hopper kernel with fields of its launch replaced."""
    text = " ".join(f"sparse_mla_decode.gluon.{field}={value}" for field, value in launch.items())
    with settings.override(sparse_mla_decode_backend="gluon", kernel_launch=text):
        return sparse_mla_decode(**arguments, sm_scale=SCALE)


def calls(rows, count):
    """Arguments of calls over one cache."""
    generator = torch.Generator().manual_seed(rows)
    cache = random_mla_cache(generator, MlaLayout(), 64, torch.device("cuda"))
    return [
        {
            "q": torch.randn(rows, 16, 576, generator=generator).bfloat16().cuda(),
            "cache": cache,
            "slots": picks(generator, rows, K, cache.slots).cuda(),
        }
        for _ in range(count)
    ]


def bits_of(made):
    """Whether results are the same is a matter of bits: a sum over other parts would show."""
    return [part.clone() for part in made]


@pytest.mark.gpu
@ON_HOPPER
@pytest.mark.parametrize("rows", [1, 32, 130])
def test_calls_that_overlap_give_what_each_gives_alone(rows):
    """Each waits for what the one before wrote, scratch that it gave back included; in a graph too."""
    of_calls = calls(rows, 4)
    alone = []
    for arguments in of_calls:
        torch.cuda.synchronize()
        alone.append(bits_of(decoded(arguments, overlap=0)))
        torch.cuda.synchronize()
    in_a_row = [decoded(of_calls[number % 4], overlap=1) for number in range(24)]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = [decoded(of_calls[number % 4], overlap=1) for number in range(8)]
    graph.replay()
    graph.replay()
    torch.cuda.synchronize()
    for of_run in (in_a_row, captured):
        for number, made in enumerate(of_run):
            assert torch.equal(made[0], alone[number % 4][0])
            assert torch.equal(made[1], alone[number % 4][1])
