"""How many bytes of indexer logits may exist at once.

Nothing is kept between calls: the budget is a function of its arguments, and callers read them on every call.
"""

from __future__ import annotations

from dataclasses import dataclass

from dsa_exec.core.hardware import MemoryReading

TOTAL_FRACTION = 0.3
"""No budget is more than this share of the device."""


@dataclass(frozen=True, slots=True)
class LogitsBudget:
    """A budget, and the limits it came from; `bytes` is the least of them.

    Attributes:
        bytes: what one chunk of logits may take.
        static_bytes: from total memory alone.
        live_bytes: from memory that is free now; None while a graph is captured, which must not depend on it.
        cap_bytes: the absolute limit of the settings, or None.
    """

    bytes: int
    static_bytes: int
    live_bytes: int | None
    cap_bytes: int | None


def logits_budget(
    reading: MemoryReading,
    *,
    free_mem_fraction: float,
    mem_fraction_static: float | None = None,
    max_chunk_bytes: int = 0,
    capturing: bool = False,
) -> LogitsBudget:
    """The budget for one chunk of logits.

    Args:
        reading: the device's memory now.
        free_mem_fraction: the share of free memory, and of memory outside static pools, that may be used; in (0, 1].
        mem_fraction_static: the share of the device given to weights and pools, or None if not known.
        max_chunk_bytes: an absolute limit; 0 for none.
        capturing: a CUDA graph is being captured, so that only what never changes may count.

    Returns:
        static = min(int(int(total * (1 - mem_fraction_static)) * f), int(0.3 * total)), or int(0.3 * total) without
        `mem_fraction_static`; live = min(int(available * f), static), not while capturing. Each is at least one byte.
    """
    total = reading.total_bytes
    static = int(total * TOTAL_FRACTION)
    if mem_fraction_static is not None:
        static = min(int(int(total * max(0.0, 1 - mem_fraction_static)) * free_mem_fraction), static)
    static = max(1, static)
    live = None if capturing else max(1, min(int(reading.available_bytes * free_mem_fraction), static))
    cap = max_chunk_bytes or None
    least = min(limit for limit in (static, live, cap) if limit is not None)
    return LogitsBudget(least, static, live, cap)
