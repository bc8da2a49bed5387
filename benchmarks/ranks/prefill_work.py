"""The indexer's step of a prefill: rows shared out, or keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from benchmarks.ranks.work import SharedWork
from dsa_config import settings
from dsa_config.declarations.backends import AUTO
from dsa_exec import GatheredKeys, KeySplit, index_select
from dsa_exec.core.numerics import E4M3
from dsa_exec.runtime.distributed import index_select_in_group, index_select_over_keys

HEADS, K = 64, 2048
SIZES = ((8192, 131072), (4096, 65536), (4096, 16384), (4096, 4096), (2048, 65536), (1024, 65536), (512, 65536))
BAR = 1.7
OWN = "cp keys contiguous"
MERGED_BY_ALL = f"{OWN}, cp_merge=replicated"
MERGED_IN_SHARES = f"{OWN}, cp_merge=split"


def works() -> Iterator[SharedWork]:
    """All sizes."""
    for rows, keys in SIZES:
        contiguous, interleaved = KeySplit.contiguous(dist.get_world_size(), keys), KeySplit(dist.get_world_size(), 64)
        yield SharedWork(
            name=f"index_select prefill {rows}x{keys}",
            inputs=_inputs(rows, keys, contiguous, interleaved),
            one=lambda it: index_select(it.q, it.weights, it.keys, K).indices,
            ways={
                "tp rows": _by_rows,
                OWN: _by_keys(contiguous, "own"),
                MERGED_BY_ALL: _by_keys(contiguous, "own", merge="replicated"),
                MERGED_IN_SHARES: _by_keys(contiguous, "own", merge="split"),
                "cp keys contiguous, all positions": _by_keys(contiguous, "all"),
                "cp keys interleaved": _by_keys(interleaved, "own"),
                "cp keys interleaved, all positions": _by_keys(interleaved, "all"),
            },
            same=_same(
                {
                    OWN: contiguous,
                    MERGED_BY_ALL: contiguous,
                    MERGED_IN_SHARES: contiguous,
                    "cp keys interleaved": interleaved,
                }
            ),
            bars={OWN: BAR} if (rows, keys) == SIZES[0] else {},
        )


class Step(NamedTuple):
    """What one GPU needs, and this rank's part of the keys by either split: an engine has no others."""

    q: torch.Tensor
    weights: torch.Tensor
    keys: GatheredKeys
    own: dict[KeySplit, GatheredKeys]


def _inputs(rows: int, keys: int, *splits: KeySplit) -> Callable[[int], Step]:
    def make(seed: int) -> Step:
        generator = torch.Generator("cuda").manual_seed(seed)
        ends = torch.arange(keys - rows + 1, keys + 1, dtype=torch.int32, device="cuda")
        q = torch.randn(rows, HEADS, 128, device="cuda", generator=generator).to(E4M3)
        weights = torch.randn(rows, HEADS, device="cuda", generator=generator)
        gathered = GatheredKeys(
            torch.randn(keys, 128, device="cuda", generator=generator).to(E4M3),
            torch.rand(keys, device="cuda", generator=generator) + 0.5,
            torch.zeros_like(ends),
            ends,
        )
        return Step(q, weights, gathered, {split: _own(gathered, split) for split in splits})

    return make


def _by_rows(it: Step) -> torch.Tensor:
    with settings.override(tp_index_rows="split"):
        return index_select_in_group(it.q, it.weights, it.keys, K).indices


def _by_keys(split: KeySplit, give: Any, merge: str = AUTO) -> Callable[[Step], torch.Tensor]:
    def run(it: Step) -> torch.Tensor:
        with settings.override(cp_merge=merge):
            return index_select_over_keys(it.q, it.weights, it.own[split], K, split, give=give).indices

    return run


def _own(keys: GatheredKeys, split: KeySplit) -> GatheredKeys:
    positions = torch.arange(len(keys.keys), device="cuda")
    mine = positions[split.part_of(positions) == dist.get_rank()]
    own = keys.keys.view(torch.uint8)[mine].view(E4M3)
    assert keys.scales is not None
    return GatheredKeys(own, keys.scales[mine], keys.starts, split.count_in(keys.ends, dist.get_rank()))


def _same(own: dict[str, KeySplit]) -> Callable[[str, Any, Any, Any], str | None]:
    def same(way: str, _: Any, got: torch.Tensor, wanted: torch.Tensor) -> str | None:
        if way in own:
            rank, split = dist.get_rank(), own[way]
            got = split.to_global(got, rank).where(got >= 0, 2**40).sort(dim=1).values
            is_own = (wanted >= 0) & (split.part_of(wanted.clamp(min=0)) == rank)
            wanted = wanted.long().where(is_own, 2**40).sort(dim=1).values
        if got.equal(wanted):
            return None
        return f"{int((got != wanted).sum())} of {wanted.numel()} positions differ from one GPU's"

    return same
