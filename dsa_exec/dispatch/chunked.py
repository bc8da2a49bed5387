"""Rows done in chunks, and what happens when memory runs out in one: the same rows again, fewer at a time.

There is no collective within, so that ranks may have other numbers of chunks, and retry on their own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from dsa_config import settings
from dsa_exec.core.errors import OutOfMemory
from dsa_exec.core.hardware import memory_reading
from dsa_exec.core.out_of_memory import is_out_of_memory, mib, release_memory
from dsa_exec.dispatch.trace import MemoryRanOut, note_out_of_memory

_log = logging.getLogger("dsa_exec.memory")
_said: set[tuple[str, str]] = set()

LESS_FROM_THE_START = (
    "a smaller mqa_logits_free_mem_fraction or mqa_logits_max_chunk_bytes takes less from the start (docs/memory.md)"
)
MORE_ROOM = (
    "give weights and pools a smaller share of the device (mem_fraction_static), or choose backends that allocate less "
    "(mqa_logits_backend, paged_mqa_logits_backend, topk_backend; docs/memory.md)"
)


def run_in_chunks(
    op: str,
    units: int,
    at_once: int,
    work: Callable[[slice], None],
    needed_bytes: Callable[[int], int],
    *,
    device: torch.device,
    unit_rows: int = 1,
    capturing: bool = False,
    release: Callable[[], None] | None = None,
) -> tuple[int, int]:
    """Do all units, in order, each once.

    A chunk for which memory runs out has not been done: `work` keeps its results last of all. Then all is released that
    this thread holds for later calls, and the chunk is done again at half the size; one of a single unit, once more as
    it is. Chunks after it are of that size too.

    Args:
        op: whose work it is, for reports.
        units: how many units there are: rows, or requests with all their rows.
        at_once: how many to begin with, at least one.
        work: does the units of a slice.
        needed_bytes: the most that a chunk of so many rows takes.
        device: where it is done.
        unit_rows: rows of a unit.
        capturing: a CUDA graph is being captured, so that nothing is tried again.
        release: lets go of what `work` itself holds from chunk to chunk.

    Returns:
        In how many chunks all was done, and how often one was done again.

    Raises:
        OutOfMemory: memory ran out and nothing more can be tried. With `retry_out_of_memory` off, the error of who ran
            out of it.
    """
    start = chunks = 0
    failed: list[MemoryRanOut] = []
    is_last_try = False
    while start < units:
        count = at_once if at_once < units - start else units - start
        part = slice(start, start + count)
        cause = _cause_of_failure(work, part, capturing)
        if cause is None:
            start, chunks, is_last_try = part.stop, chunks + 1, False
            continue
        # Only now does nothing hold on to the tensors of what failed.
        if release is not None:
            release()
        release_memory(device)
        at_once = 0 if is_last_try else max(count // 2, 1)
        sizes = count * unit_rows, at_once * unit_rows, needed_bytes(count * unit_rows)
        event = MemoryRanOut(op, str(device), *sizes, memory_reading(device))
        note_out_of_memory(event)
        if is_last_try:
            raise _given_up(event, len(failed)) from cause
        failed.append(event)
        is_last_try = count == 1
    if failed:
        _report(failed, at_once * unit_rows)
    return chunks, len(failed)


def _cause_of_failure(work: Callable[[slice], None], part: slice, capturing: bool) -> BaseException | None:
    """Do a chunk; None if it is done, what said that memory ran out if that may be tried again."""
    try:
        work(part)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if capturing or not settings.retry_out_of_memory:
            why = "a graph is being captured" if capturing else "retry_out_of_memory is off"
            error.add_note(f"nothing is tried with fewer rows, since {why}; {LESS_FROM_THE_START}")
            raise
        error.__context__ = error.__cause__ = None
        return error.with_traceback(None)  # frames hold tensors
    return None


def _given_up(event: MemoryRanOut, retries: int) -> OutOfMemory:
    return OutOfMemory(
        event.op,
        event.device,
        rows=event.rows,
        needed_bytes=event.needed_bytes,
        free_bytes=event.memory.free_bytes,
        reusable_bytes=event.memory.reusable_bytes,
        retries=retries,
        change=MORE_ROOM,
    )


def _report(failed: list[MemoryRanOut], rows: int) -> None:
    """Say it once a process as a warning, then as information: it may come at every layer of every step."""
    first = failed[0]
    key = first.op, first.device
    level = logging.INFO if key in _said else logging.WARNING
    _said.add(key)
    _log.log(
        level,
        "%s: memory ran out on %s with %d rows at a time, which take up to %s; with all released that was kept, %s "
        "were free and %s unused in torch's allocator; done with %d rows at a time after %d %s; %s",
        first.op,
        first.device,
        first.rows,
        mib(first.needed_bytes),
        mib(first.memory.free_bytes),
        mib(first.memory.reusable_bytes),
        rows,
        len(failed),
        "retry" if len(failed) == 1 else "retries",
        LESS_FROM_THE_START,
    )
