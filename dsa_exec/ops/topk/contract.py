"""What every backend of `topk` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.dispatch.contract import Case, Contract, index, normal
from dsa_exec.layouts.views import SlotMap

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]
Scores = Callable[[torch.Generator, torch.device, int, int], torch.Tensor]


def _equal(_: torch.Generator, device: torch.device, rows: int, width: int) -> torch.Tensor:
    return torch.full((rows, width), 0.25, device=device)


def _mostly_zero(generator: torch.Generator, device: torch.device, rows: int, width: int) -> torch.Tensor:
    scores = normal(generator, device, rows, width)
    return scores.where(normal(generator, device, rows, width) > 1.5, 0.0)


def _signed_zeros(generator: torch.Generator, device: torch.device, rows: int, width: int) -> torch.Tensor:
    return torch.zeros(rows, width, device=device).copysign(normal(generator, device, rows, width))


def _ramp(sign: int) -> Scores:
    def scores(_: torch.Generator, device: torch.device, rows: int, width: int) -> torch.Tensor:
        return (torch.arange(width, device=device) * sign).float().expand(rows, width).contiguous()

    return scores


def _few_values(generator: torch.Generator, device: torch.device, rows: int, width: int) -> torch.Tensor:
    return normal(generator, device, rows, width).round()


def _infinite(generator: torch.Generator, device: torch.device, rows: int, width: int) -> torch.Tensor:
    scores = normal(generator, device, rows, width)
    return scores.where(scores < 1, torch.inf).where(scores > -0.5, -torch.inf)


def _with_nan(generator: torch.Generator, device: torch.device, rows: int, width: int) -> torch.Tensor:
    scores = normal(generator, device, rows, width)
    return scores.where(scores < 0.8, torch.nan)


def _pick(
    lengths: Sequence[int],
    width: int,
    k: int,
    *,
    starts: Sequence[int] | None = None,
    scores: Scores = normal,
    row_stride: int | None = None,
    to_slots: bool = False,
    pages: Sequence[int] | None = None,
    table_pages: int = 4,
    page_tokens: int = 16,
    slot_count: int = 2**31,
    request_dtype: torch.dtype | None = torch.int32,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        rows = len(lengths)
        logits = torch.full((rows, row_stride or width), torch.nan, device=device)[:, :width]
        logits.copy_(scores(generator, device, rows, width))
        columns = torch.arange(width, device=device)
        first = index(device, *(starts or [0] * rows), dtype=torch.int64)[:, None]
        outside = (columns < first) | (columns >= first + index(device, *lengths)[:, None])
        logits.masked_fill_(outside, torch.nan)  # what is not cleaned must not be looked at
        args: dict[str, Any] = {"logits": logits, "lengths": index(device, *lengths), "k": k}
        if starts is not None:
            args["row_starts"] = index(device, *starts)
        if to_slots:
            table = torch.randperm(16 * table_pages, generator=generator)[: 2 * table_pages]
            table = table.reshape(2, table_pages).to(device, torch.int32)
            if pages is not None:
                table[:, 1:] = index(device, *pages)
            of_row = None
            if request_dtype is not None:
                of_row = index(device, *(row % 2 for row in range(rows)), dtype=request_dtype)
            args["slot_map"] = SlotMap(table, page_tokens, of_row, slot_count, rows_per_request=rows // 2)
        return args

    return make


_LENGTHS = (50, 17, 16, 1, 0)
_FAR_PAGES = (2**26, 2**31 - 1, 2**26 - 1)
"""With 64 tokens each: the first page beyond int32, one whose slots are 0 in 32 bits or more, and the last within."""

CONTRACT = Contract(
    op="topk",
    cases=(
        Case("ragged", _pick(_LENGTHS, 50, 16)),
        Case("windows", _pick((20, 17, 0, 5), 50, 16, starts=(0, 33, 50, 45))),
        Case("one row", _pick((300,), 300, 64)),
        Case("no row", _pick((), 50, 16)),
        Case("no column", _pick((0, 0), 0, 16)),
        Case("one column", _pick((1, 0), 1, 1)),
        Case("fewer columns than k", _pick((5, 3), 5, 16)),
        Case("as many columns as k", _pick((16, 15), 16, 16)),
        Case("all equal", _pick(_LENGTHS, 50, 16, scores=_equal)),
        Case("mostly zero", _pick(_LENGTHS, 50, 16, scores=_mostly_zero)),
        Case("zeros of both signs", _pick(_LENGTHS, 50, 16, scores=_signed_zeros)),
        Case("a rising ramp", _pick(_LENGTHS, 50, 16, scores=_ramp(1))),
        Case("a falling ramp", _pick(_LENGTHS, 50, 16, scores=_ramp(-1))),
        Case("few values", _pick((300, 299), 300, 64, scores=_few_values)),
        Case("infinities", _pick((300, 40), 300, 64, scores=_infinite)),
        Case("NaN within the window", _pick((300, 40), 300, 64, scores=_with_nan)),
        Case("negative and overlong lengths", _pick((-5, 99, 2**31 - 1), 50, 16, starts=(3, 2, 1))),
        Case("rows of another stride", _pick(_LENGTHS, 50, 16, row_stride=67)),
        Case("slots", _pick(_LENGTHS, 50, 16, to_slots=True)),
        Case("slots beyond the table", _pick((80, 70), 80, 32, to_slots=True)),
        Case("slots of windows", _pick((20, 17, 0, 5), 50, 16, starts=(0, 33, 50, 45), to_slots=True)),
        Case("pages that cannot be", _pick((60, 64, 50), 64, 64, to_slots=True, pages=(-1, 2**27, 2**31 - 1))),
        Case("slots of pages of 64", _pick((300, 65, 64, 0), 300, 64, to_slots=True, page_tokens=64)),
        Case("slots of pages of 1", _pick((40, 17, 39), 40, 16, to_slots=True, table_pages=40, page_tokens=1)),
        Case("slots of odd pages", _pick((50, 17, 49), 50, 16, to_slots=True, page_tokens=7)),
        Case("slots of a small pool", _pick((60, 50, 64), 64, 32, to_slots=True, slot_count=500)),
        Case("slots of int64 requests", _pick(_LENGTHS, 50, 16, to_slots=True, request_dtype=torch.int64)),
        Case(
            "slots, rows request by request", _pick((50, 17, 9, 50, 16, 0), 50, 16, to_slots=True, request_dtype=None)
        ),
        Case("slots, a row a request", _pick((49, 60), 64, 16, to_slots=True, request_dtype=None)),
        Case(
            "slots of wide rows, request by request",
            _pick((20000, 70) * 2, 20000, 64, to_slots=True, request_dtype=None),
        ),
        Case("the last slot there can be", _pick((4, 3), 4, 4, to_slots=True, page_tokens=1, pages=(2**31 - 1, -1, 0))),
        Case(
            "pages whose slots overflow", _pick((256, 200), 256, 256, to_slots=True, page_tokens=64, pages=_FAR_PAGES)
        ),
        Case("k of 1", _pick(_LENGTHS, 50, 1)),
        Case("the usual k", _pick((2500, 2049, 2048), 2500, 2048, scores=_few_values)),
        Case("the greatest k", _pick((9000, 4097, 4096), 9000, 4096, scores=_few_values)),
        Case("wide rows", _pick((20000, 16385, 4097, 3), 20000, 2048)),
        Case("wide rows, mostly zero", _pick((20000, 19999), 20000, 2048, scores=_mostly_zero)),
        Case("wide rows, all equal", _pick((20000, 2049), 20000, 2048, scores=_equal)),
        Case("a wide rising ramp", _pick((20000,), 20000, 2048, scores=_ramp(1))),
        Case("a wide falling ramp", _pick((20000,), 20000, 2048, scores=_ramp(-1))),
        Case("wide windows", _pick((9999, 4096, 70), 10007, 100, starts=(3, 5911, 9940), scores=_few_values)),
    ),
    result=lambda _, returned: {"positions": returned},
)
