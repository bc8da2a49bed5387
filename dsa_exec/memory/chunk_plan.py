"""In how many rows at a time a call is done: the one place where rows are divided by a logits budget.

Whoever scores rows goes through here: gathered and paged keys, the rows of a context-parallel rank, a request at a
time. What follows depends on the arguments alone; ranks with other budgets have other chunks, and the same results.
"""

from __future__ import annotations

from typing import NamedTuple

from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.logits_budget import LogitsBudget, budget_of_numbers

WORKSPACE_BYTES = 512 * 2**20
"""The logits that exist at once, though the budget may allow more. A chunk of this size keeps an H100 busy for
milliseconds, so that larger ones gain nothing; and memory that has its size soon and keeps it does not grow with the
context. `mqa_logits_max_chunk_bytes` takes its place where it is set."""

LEAST_ROUNDED_BYTES = 2**20
"""Workspaces from here on have powers of two as sizes. Smaller tensors come from blocks that torch shares out."""


class ChunkPlan(NamedTuple):
    """How a call is done.

    Attributes:
        units_at_once: how many units a chunk has: rows, or requests with all their rows.
        bytes: the most that such a chunk takes.
        least_bytes: the most that the smallest chunk, of one unit, takes. More than the budget: it is exceeded.
        workspace_bytes: how large a workspace for logits may be.
    """

    units_at_once: int
    bytes: int
    least_bytes: int
    workspace_bytes: int


def plan_chunks(
    units: int,
    footprint: Footprint,
    budget_bytes: int,
    unit_rows: int = 1,
    most_logits_bytes: int = WORKSPACE_BYTES,
) -> ChunkPlan:
    """Plan the chunks of a call.

    Args:
        units: how many units there are.
        footprint: of the call.
        budget_bytes: what a chunk may take.
        unit_rows: rows of a unit.
        most_logits_bytes: what the logits of a chunk may take of that.

    Returns:
        The plan: as many units at once as fit, at least one, at most all. Where not all fit, the logits fill a power of
        two of bytes, so that budgets that differ a little have workspaces of one size.
    """
    _, _, _, workspace_row, own_row, multiple = footprint
    row, unit_rows = workspace_row + own_row, unit_rows or 1
    rows, all_rows = footprint.rows_within(budget_bytes), (units or 1) * unit_rows
    if row:
        room = most_logits_bytes if rows * row > most_logits_bytes else rows * row
        rows = room // row
        if rows < all_rows and (rounded := 1 << room.bit_length() >> 1) >= LEAST_ROUNDED_BYTES:
            rows = rounded // row
            rows = rows // multiple * multiple or rows
    rows = all_rows if rows >= all_rows else (rows // unit_rows or 1) * unit_rows
    taken = footprint.bytes(rows)
    logits = rows * workspace_row
    room = budget_bytes - taken + logits
    if room > most_logits_bytes:
        room = most_logits_bytes
    least = taken if rows == unit_rows else footprint.bytes(unit_rows)
    return ChunkPlan(rows // unit_rows, taken, least, room if room > logits else logits)


_Question = tuple[int, int | None, float, float | None, int, int | None, int, int, Footprint]
_last: tuple[_Question | None, tuple[LogitsBudget, ChunkPlan] | None] = (None, None)


def plan_call(
    total_bytes: int,
    available_bytes: int | None,
    free_mem_fraction: float,
    mem_fraction_static: float | None,
    max_chunk_bytes: int,
    most_tensor_bytes: int | None,
    units: int,
    unit_rows: int,
    footprint: Footprint,
) -> tuple[LogitsBudget, ChunkPlan]:
    """The budget of a call and its chunks: all that they depend on are the arguments.

    The last answer is kept with its whole question, since layers of a step mostly find the same memory. Other memory,
    or another setting, is another question.

    Args:
        total_bytes: of the device.
        available_bytes: free or reusable; None if that does not count.
        free_mem_fraction: as in `logits_budget`.
        mem_fraction_static: likewise.
        max_chunk_bytes: likewise.
        most_tensor_bytes: likewise.
        units: as in `plan_chunks`.
        unit_rows: likewise.
        footprint: likewise.
    """
    global _last
    limits = free_mem_fraction, mem_fraction_static, max_chunk_bytes, most_tensor_bytes
    question: _Question = (total_bytes, available_bytes, *limits, units, unit_rows, footprint)
    asked, answer = _last
    if answer is not None and asked == question:
        return answer
    budget = budget_of_numbers(total_bytes, available_bytes, *limits)
    most_logits = WORKSPACE_BYTES if budget.cap_bytes is None else budget.cap_bytes
    answer = budget, plan_chunks(units, footprint, budget.bytes, unit_rows, most_logits)
    _last = question, answer
    return answer
