"""What every backend of `topk_merge` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.dispatch.contract import Case, Contract, index, normal
from dsa_exec.layouts.key_split import KeyPart, KeySplit
from dsa_exec.layouts.views import SlotMap
from dsa_exec.ops.topk_merge import Merged

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]
Scores = Callable[[torch.Generator, int, int], torch.Tensor]


def _normal(generator: torch.Generator, rows: int, width: int) -> torch.Tensor:
    return normal(generator, torch.device("cpu"), rows, width)


def _few_values(generator: torch.Generator, rows: int, width: int) -> torch.Tensor:
    return _normal(generator, rows, width).round()


def _equal(_: torch.Generator, rows: int, width: int) -> torch.Tensor:
    return torch.full((rows, width), 0.25)


def _mostly_zero(generator: torch.Generator, rows: int, width: int) -> torch.Tensor:
    scores = _normal(generator, rows, width)
    return scores.where(scores.abs() > 1.5, torch.zeros(rows, width).copysign(scores))


def _hostile(generator: torch.Generator, rows: int, width: int) -> torch.Tensor:
    scores = _normal(generator, rows, width)
    scores = scores.where(scores < 1, torch.inf).where(scores > -0.5, -torch.inf)
    return scores.where(_normal(generator, rows, width) < 1, torch.nan)


def _candidates(scores: torch.Tensor, lens: Sequence[int], split: KeySplit, each: int) -> torch.Tensor:
    """The best of each part, in the order of positions, int32 [p, t, 2, each]; NaN bits where there is none."""
    rows = len(lens)
    told = torch.full((split.parts, rows, 2, each), -1, dtype=torch.int32)
    ranked = scores.where(~scores.isnan(), -torch.inf)
    for row, length in enumerate(lens):
        positions = torch.arange(length)
        of = split.of_rows(slice(row, row + 1)).part_of(positions[None])[0]
        for part in range(split.parts):
            own = positions[of == part]
            best = ranked[row, own].sort(descending=True, stable=True).indices[:each].sort().values
            told[part, row, 0, : len(best)] = scores[row, own[best]].view(torch.int32)
            told[part, row, 1, : len(best)] = own[best].to(torch.int32)
    return told


def _merge(
    lens: Sequence[int],
    k: int,
    *,
    parts: int = 2,
    block: int | Sequence[int] = 1,
    each: int | None = None,
    scores: Scores = _normal,
    keep: int | None = None,
    again: bool = False,
    to_slots: bool = False,
    listed: bool = False,
    in_order: bool = False,
    apart: bool = False,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        rows = len(lens)
        split = KeySplit(parts, block if isinstance(block, int) else index(torch.device("cpu"), *block))
        all_scores = scores(generator, rows, max(lens, default=0))
        told = _candidates(all_scores, lens, split, k if each is None else each)
        args: dict[str, Any] = {"k": k}
        if keep is not None:
            blocks = split.block.to(device) if isinstance(split.block, torch.Tensor) else split.block
            args["keep"] = KeyPart(KeySplit(parts, blocks), keep)
        if again:
            args["bounds"] = _bounds_of(told, k).to(device)
            told = told if keep is None else told[keep : keep + 1]
        if apart:
            wide = torch.full((2 * len(told), rows + 1, 2, told.shape[3] + 3), 7, dtype=torch.int32)
            told = wide[::2, :rows, :, : told.shape[3]].copy_(told)
        if to_slots:
            table = torch.randperm(64, generator=generator)[:16].reshape(2, 8).to(device, torch.int32)
            table[1, 1] = -1
            of_row = index(device, *(row % 2 for row in range(rows))) if listed else None
            args["slot_map"] = SlotMap(table, 16, of_row, 900, rows_per_request=rows // 2)
        if in_order:
            args["in_order"] = True
        return {"candidates": _placed(told, device), **args}

    return make


def _placed(told: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The same on a device, with its strides."""
    if told.device == device:
        return told
    placed = torch.empty_strided(told.shape, told.stride(), dtype=told.dtype, device=device)
    return placed.copy_(told)


def _bounds_of(told: torch.Tensor, k: int) -> torch.Tensor:
    """Bounds as `topk_merge` finds them, row by row."""
    parts, rows, _, each = told.shape
    bounds = torch.full((rows, 2), 2**31 - 1, dtype=torch.int32)
    for row in range(rows):
        bits = told[:, row, 0].reshape(parts * each)
        scores, positions = bits.view(torch.float32), told[:, row, 1].reshape(parts * each)
        there = [it for it in range(parts * each) if positions[it] >= 0]
        ranked = scores.where(~scores.isnan(), -torch.inf) + 0.0
        there.sort(key=lambda it: (-float(ranked[it]), int(positions[it])))
        bounds[row, 0] = -(2**31)
        if len(there) >= k:
            least = int(ranked[there[k - 1]].view(torch.int32))
            bounds[row, 0] = least if least >= 0 else least ^ 0x7FFFFFFF
            if any(ranked[it] == ranked[there[k - 1]] for it in there[k:]):
                bounds[row, 1] = positions[there[k - 1]]
    return bounds


def _result(_: dict[str, Any], merged: Merged) -> dict[str, torch.Tensor]:
    return {"picked": merged.picked, "counts": merged.counts}


_LENS = (90, 16, 0)

CONTRACT = Contract(
    op="topk_merge",
    cases=(
        Case("tokens in turn", _merge(_LENS, 16)),
        Case("pages in turn", _merge(_LENS, 16, parts=3, block=8)),
        Case("one block a part", _merge(_LENS, 16, block=50)),
        Case("one block a part, in order", _merge(_LENS, 16, block=50, in_order=True)),
        Case("one part", _merge(_LENS, 16, parts=1)),
        Case("more parts than keys", _merge((5, 3), 4, parts=9)),
        Case("no row", _merge((), 16)),
        Case("no candidate", _merge((0, 0), 16, each=0)),
        Case("fewer candidates than k", _merge((20, 11), 16, each=5)),
        Case("more candidates than k", _merge((90, 60), 16, each=30)),
        Case("k of 1", _merge(_LENS, 1)),
        Case("few values", _merge((300,), 64, parts=4, scores=_few_values)),
        Case("few values, one block a part", _merge((300,), 64, parts=3, block=100, scores=_few_values)),
        Case("all equal", _merge(_LENS, 16, parts=3, scores=_equal)),
        Case("mostly zero, of both signs", _merge((300,), 64, parts=3, block=16, scores=_mostly_zero)),
        Case("infinities and NaN", _merge((300, 65), 64, parts=2, scores=_hostile)),
        Case("a part's own", _merge(_LENS, 16, keep=1)),
        Case("a part's own, pages in turn", _merge(_LENS, 16, parts=3, block=8, keep=0, scores=_few_values)),
        Case("a part's own, blocks of rows", _merge(_LENS, 16, block=(45, 8, 1), keep=1)),
        Case("a part's own slots", _merge((90, 33), 16, block=8, keep=1, to_slots=True)),
        Case("own slots, listed requests", _merge((250, 200, 90), 64, block=16, keep=0, to_slots=True, listed=True)),
        Case(
            "many candidates, read anew",
            _merge(_LENS, 16, parts=3),
            settings={"kernel_launch": "topk_merge.triton.held=0"},
        ),
        Case("by bounds", _merge(_LENS, 16, again=True)),
        Case("by bounds, a part's own", _merge(_LENS, 16, parts=3, keep=2, again=True, scores=_few_values)),
        Case("by bounds, all equal", _merge(_LENS, 16, keep=0, again=True, scores=_equal)),
        Case("by bounds, own slots", _merge((90, 33), 16, block=8, keep=1, again=True, to_slots=True)),
        Case("rows and parts apart", _merge(_LENS, 16, parts=3, keep=1, apart=True)),
        Case("the usual k", _merge((5000,), 2048, scores=_few_values)),
        Case("the greatest k", _merge((9000,), 4096, scores=_mostly_zero)),
    ),
    result=_result,
)
