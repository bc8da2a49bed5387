"""How many bytes of indexer logits, and of what is allocated to make and read them, may exist at once.

Nothing is kept between calls: the budget is a function of its arguments, and callers read them on every call.
"""

from __future__ import annotations

from typing import NamedTuple

from dsa_exec.core.hardware import MemoryReading

TOTAL_FRACTION = 0.3
"""No budget is more than this share of the device."""

ASKED_ELEMENTS = 8_000_000
"""Logits from which the driver is asked what is free: fewer take 32 MB at most, and asking costs as much as they do."""


class LogitsBudget(NamedTuple):
    """A budget, and the limits it came from; `bytes` is the least of them.

    Attributes:
        bytes: what one chunk may take.
        static_bytes: from total memory alone.
        live_bytes: from memory that is free now; None where that does not count: while a graph is captured, which must
            not depend on it, and for so few logits that it is not asked for.
        cap_bytes: the absolute limit of the settings, or None.
        tensor_bytes: the most that kernels of the device address in one tensor of logits, or None.
    """

    bytes: int
    static_bytes: int
    live_bytes: int | None
    cap_bytes: int | None
    tensor_bytes: int | None = None


def asks_for_free_memory(rows: int, width: int) -> bool:
    """Whether a call has so many logits, rows times columns, that the driver is asked what is free."""
    return rows * width >= ASKED_ELEMENTS


def logits_budget(
    reading: MemoryReading,
    *,
    free_mem_fraction: float,
    mem_fraction_static: float | None = None,
    max_chunk_bytes: int = 0,
    capturing: bool = False,
    free_is_known: bool = True,
    most_tensor_bytes: int | None = None,
) -> LogitsBudget:
    """The budget for one chunk.

    Args:
        reading: the device's memory now.
        free_mem_fraction: the share of free memory, and of memory outside static pools, that may be used; in (0, 1].
        mem_fraction_static: the share of the device given to weights and pools, or None if not known.
        max_chunk_bytes: an absolute limit; 0 for none.
        capturing: a CUDA graph is being captured, so that only what never changes may count.
        free_is_known: the reading says what is free; otherwise its total alone counts.
        most_tensor_bytes: what the device's kernels can address in one tensor (`Capabilities.most_tensor_bytes`).

    Returns:
        static = min(int(int(total * (1 - mem_fraction_static)) * f), int(0.3 * total)), or int(0.3 * total) without
        `mem_fraction_static`; live = min(int(available * f), static), where free memory counts. Each is at least one
        byte. `int` cuts off what is no whole byte.
    """
    available = reading.available_bytes if free_is_known and not capturing else None
    limits = free_mem_fraction, mem_fraction_static, max_chunk_bytes, most_tensor_bytes
    return budget_of_numbers(reading.total_bytes, available, *limits)


def budget_of_numbers(
    total_bytes: int,
    available_bytes: int | None,
    free_mem_fraction: float,
    mem_fraction_static: float | None,
    max_chunk_bytes: int,
    most_tensor_bytes: int | None,
) -> LogitsBudget:
    """`logits_budget` of plain numbers; `available_bytes` is None where free memory does not count."""
    static = int(total_bytes * TOTAL_FRACTION)
    if mem_fraction_static is not None:
        outside = int(total_bytes * max(0.0, 1 - mem_fraction_static))
        static = min(int(outside * free_mem_fraction), static)
    least = static = static or 1
    live = None
    if available_bytes is not None:
        live = int(available_bytes * free_mem_fraction) or 1
        if live > static:
            live = static
        least = live
    cap = max_chunk_bytes or None
    if cap is not None and cap < least:
        least = cap
    if most_tensor_bytes is not None and most_tensor_bytes < least:
        least = most_tensor_bytes
    return LogitsBudget(least, static, live, cap, most_tensor_bytes)
