"""A decode step over keys and latents that are shared out: selection, attention to the own ones, and the merge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from benchmarks.ops.attention_work import SCALE, WIDTH, mla_cache
from benchmarks.ops.paged_mqa_logits_work import inputs as index_inputs
from benchmarks.ops.work import relative_error
from benchmarks.ranks.work import SharedWork, all_equal
from dsa_exec import KeySplit, PagedKeys, index_select, sparse_mla_decode
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.runtime.distributed import HeadSplit, attention_in_group, index_select_over_keys

K = 2048
PAGE = IndexKLayout().page_tokens
STEPS = ((128, 65536, 16), (128, 65536, 128), (32, 65536, 16), (16, 524288, 16), (1, 1048576, 16))
BAR = 1.6  # 1.25 times the half
MOST_OFF = 4e-3  # of the norm: parts are rounded to bf16 once more
WAY = "cp keys interleaved"


class Step(NamedTuple):
    """A step as one GPU has it, and the part of it that this rank has: every second page, of two."""

    q: torch.Tensor
    head_weights: torch.Tensor
    keys: PagedKeys
    own: PagedKeys
    attention_q: torch.Tensor


def works() -> Iterator[SharedWork]:
    """The selection alone, then whole steps."""
    split = KeySplit(dist.get_world_size(), PAGE)
    for requests, context, _ in dict.fromkeys((b, s, 0) for b, s, _ in STEPS):
        yield SharedWork(
            name=f"index_select decode {requests}x{context}",
            inputs=_inputs(requests, context, 16),
            one=lambda it: index_select(it.q, it.head_weights, it.keys, K).indices,
            ways={WAY: lambda it: index_select_over_keys(it.q, it.head_weights, it.own, K, split).indices},
            same=_own_slots,
            captured=True,
            bars={WAY: BAR},
        )
    for requests, context, heads in STEPS:
        yield SharedWork(
            name=f"decode step {requests}x{context}, {heads} heads",
            inputs=_inputs(requests, context, heads),
            one=_one,
            ways={
                WAY: _shared(split, "all"),
                f"{WAY}, each rank its heads": _shared(split, "own"),
                "tp heads": _by_heads,
            },
            same=_near,
            captured=True,
            bars={WAY: BAR} if heads == 16 else {},
        )


def _inputs(requests: int, context: int, heads: int) -> Callable[[int], Step]:
    make_index = index_inputs(requests, context, 1, 64)

    def make(seed: int) -> Step:
        it, rank, world = make_index(seed), dist.get_rank(), dist.get_world_size()
        generator = torch.Generator("cuda").manual_seed(seed + 7)
        own = PagedKeys(
            it.cache,
            it.page_table[:, rank::world].contiguous(),
            KeySplit(world, PAGE).count_in(it.context_lens, rank),
        )
        q = torch.randn(requests, heads, WIDTH, device="cuda", generator=generator).bfloat16()
        return Step(it.q, it.head_weights, PagedKeys(it.cache, it.page_table, it.context_lens), own, q)

    return make


def _one(it: Step) -> torch.Tensor:
    slots = index_select(it.q, it.head_weights, it.keys, K).indices
    return sparse_mla_decode(it.attention_q, mla_cache(), slots, sm_scale=SCALE)[0]


def _by_heads(it: Step) -> torch.Tensor:
    """Every rank selects for itself, and attends with its share of the heads."""
    share = HeadSplit(it.attention_q.shape[1], dist.get_world_size()).of(dist.get_rank())
    slots = index_select(it.q, it.head_weights, it.keys, K).indices
    return sparse_mla_decode(it.attention_q[:, share], mla_cache(), slots, sm_scale=SCALE)[0]


def _shared(split: KeySplit, heads: Any) -> Callable[[Step], torch.Tensor]:
    def run(it: Step) -> torch.Tensor:
        found = index_select_over_keys(it.q, it.head_weights, it.own, K, split)
        options = {"sm_scale": SCALE, "topk_length": found.counts}
        part = sparse_mla_decode(it.attention_q, mla_cache(), found.indices, **options)
        return attention_in_group(*part, heads=heads)[0]

    return run


def _own_slots(way: str, it: Step, got: torch.Tensor, wanted: torch.Tensor) -> str | None:
    """This rank's slots are those of one GPU that lie on its own pages."""
    pages = torch.zeros(it.keys.cache.slots // PAGE, dtype=torch.bool, device="cuda")
    for request in range(len(wanted)):
        pages.zero_()
        pages[it.own.page_table[request].long()] = True
        of = wanted[request].long()
        mine = of[(of >= 0) & pages[of.clamp(min=0) // PAGE]]
        if (problem := all_equal(way, it, got[request][got[request] >= 0].long(), mine)) is not None:
            return f"request {request}: {problem}"
    return None


def _near(_way: str, _it: Step, got: torch.Tensor, wanted: torch.Tensor) -> str | None:
    if got.shape != wanted.shape:
        heads = got.shape[1]
        wanted = wanted[:, dist.get_rank() * heads :][:, :heads]
    error = relative_error(got, wanted.double())
    return None if error < MOST_OFF else f"off by {error:.1e} of one GPU's"
