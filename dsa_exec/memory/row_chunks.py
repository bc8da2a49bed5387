"""Rows in parts: how many fit so many bytes, and slices that cover all of them."""

from __future__ import annotations

from collections.abc import Iterator


def rows_that_fit(row_bytes: int, budget_bytes: int) -> int:
    """How many rows fit in the budget: at least one."""
    return max(1, budget_bytes // max(row_bytes, 1))


def rows_per_chunk(rows: int, row_bytes: int, budget_bytes: int) -> int:
    """How many rows fit in the budget: at least one, at most all."""
    return max(1, min(rows, rows_that_fit(row_bytes, budget_bytes)))


def row_chunks(rows: int, per_chunk: int) -> Iterator[slice]:
    """Slices that cover all rows in order, each of `per_chunk` rows but for the last."""
    for start in range(0, rows, per_chunk):
        yield slice(start, min(start + per_chunk, rows))
