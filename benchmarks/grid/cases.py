"""The sizes of the grid."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.grid.record import GridRow, Phase
from benchmarks.ops import attention_work, index_select_work
from benchmarks.ops.paged_mqa_logits_work import LAYOUT
from benchmarks.ops.work import Work

KI = 1024
PREFILL_ROWS = tuple(KI << power for power in range(6))
CONTEXTS = tuple(4 * KI << power for power in range(7))
BATCHES = tuple(1 << power for power in range(9))
NEXT_N = (1, 2, 4)
INDEX_HEADS = (64, 32)
ATTENTION_HEADS = (8, 16, 32, 64, 128)
MOST_OF_DEVICE = 0.2
"""The share of the device's memory that the pool of keys may take."""


@dataclass(frozen=True, slots=True)
class Case:
    """One size.

    Attributes:
        work: what is done.
        phase: prefill or decode.
        rows: queries of a prefill, or requests.
        context: keys.
        heads: of the index, or of the attention.
        next_n: rows of a request.
        absent: why it is not measured here.
    """

    work: Work
    phase: Phase
    rows: int
    context: int
    heads: int
    next_n: int = 1
    absent: str | None = None

    @property
    def line(self) -> tuple[Any, ...]:
        """Cases that have this in common come one after the other, and differ in one size, from small to large."""
        if self.work.op == "index_select":
            return self.work.op, self.phase, self.heads, self.next_n, self.rows
        return (self.work.op,) if self.phase == "prefill" else (self.work.op, self.heads)

    def row(self, **found: Any) -> GridRow:
        """A row of the record."""
        return GridRow(
            op=self.work.op,
            phase=self.phase,
            rows=self.rows,
            context=self.context,
            next_n=self.next_n,
            heads=self.heads,
            floor_us=self.work.floor_us,
            **found,
        )


def cases(total_bytes: int) -> Iterator[Case]:
    """Every size: those of prefill, of attention, of decode.

    Args:
        total_bytes: memory of the device, a share of which the pool of keys may take.
    """
    yield from _prefill()
    yield from _attention()
    yield from _decode(total_bytes)


def _prefill() -> Iterator[Case]:
    for heads in INDEX_HEADS:
        for rows in PREFILL_ROWS:
            for context in CONTEXTS:
                if rows <= context:
                    work = index_select_work.prefill(rows, context, heads)
                    yield Case(work, "prefill", rows, context, heads)


def _attention() -> Iterator[Case]:
    rows, context = attention_work.PREFILL
    for heads in ATTENTION_HEADS:
        yield Case(attention_work.prefill(heads), "prefill", rows, context, heads)
    for heads in ATTENTION_HEADS:
        for batch in BATCHES:
            work = attention_work.decode(batch, heads)
            yield Case(work, "decode", batch, attention_work.CONTEXT, heads)


def _decode(total_bytes: int) -> Iterator[Case]:
    wanted = BATCHES[-1] * CONTEXTS[-1] // LAYOUT.page_tokens
    pages = min(wanted, int(total_bytes * MOST_OF_DEVICE) // LAYOUT.page_bytes)
    for heads in INDEX_HEADS:
        for next_n in NEXT_N:
            for batch in BATCHES:
                for context in CONTEXTS:
                    work = index_select_work.decode(batch, context, next_n, heads, page_count=pages)
                    case = Case(work, "decode", batch, context, heads, next_n)
                    needed = batch * context // LAYOUT.page_tokens
                    absent = f"takes {needed} pages of keys, the pool has {pages}" if needed > pages else None
                    yield dataclasses.replace(case, absent=absent)
