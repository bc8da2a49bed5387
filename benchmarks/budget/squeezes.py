"""Selections on a GPU that other tensors have filled: right, and within the budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import torch

from benchmarks.budget.record import Squeeze
from benchmarks.budget.work import Prefill
from dsa_exec.core.hardware import MemoryReading, memory_reading
from dsa_exec.core.logits_workspace import forget_workspaces, kept_bytes
from dsa_exec.dispatch.chunked import run_in_chunks
from dsa_exec.dispatch.trace import record_calls
from dsa_exec.ops.index_select import chunks, index_select

MIB = 2**20
LEFT = (1024 * MIB, 256 * MIB)
TIGHTER = (1024 * MIB, 640 * MIB, 384 * MIB, 192 * MIB, 96 * MIB)
TAKEN_DURING = 64 * MIB
"""What another stream leaves once the budget has been worked out."""


def squeezes(work: Prefill) -> list[Squeeze]:
    """Every way of taking memory, one after the other."""
    arguments = work.arguments()
    device = work.q.device
    wanted = index_select(*arguments, out=work.out).indices.cpu()

    def selection(what: str) -> Squeeze:
        work.out.fill_(-7)
        return _squeezed(what, work, arguments, wanted, device)

    found = []
    for left in LEFT:
        forget_workspaces(device)
        with filled(left, device):
            found.append(selection(f"all but {left // MIB} MiB are taken"))
    forget_workspaces(device)
    with filled(TIGHTER[0], device) as fill:
        for left in TIGHTER:
            fill(left)
            found.append(selection(f"tighter between calls: {left // MIB} MiB left"))
    forget_workspaces(device)
    with filled(LEFT[0], device), _taken_during_a_call(device):
        found.append(selection("another stream takes all but 64 MiB during the call"))
    forget_workspaces(device)
    with filled(LEFT[0], device), _ever_changing(device):
        found += [selection("another stream takes and gives back all the time") for _ in range(3)]
    return found


@contextmanager
def filled(left: int, device: torch.device) -> Iterator[Callable[[int], None]]:
    """Hold all of the device's memory but so many bytes; what is given can be called for another number."""
    held: list[torch.Tensor] = []

    def fill(bytes_left: int) -> None:
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()
        more = torch.cuda.mem_get_info(device)[0] - bytes_left
        while more >= 2 * MIB:  # a driver's pages
            held.append(torch.empty(more // (2 * MIB) * 2 * MIB, dtype=torch.uint8, device=device))
            more = torch.cuda.mem_get_info(device)[0] - bytes_left

    fill(left)
    try:
        yield fill
    finally:
        held.clear()
        torch.cuda.empty_cache()


def _squeezed(
    what: str, work: Prefill, arguments: tuple[Any, ...], wanted: torch.Tensor, device: torch.device
) -> Squeeze:
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    left = torch.cuda.mem_get_info(device)[0]
    # What the thread keeps for its calls is of the calls.
    before = torch.cuda.memory_allocated(device) - kept_bytes(device)

    def loop(*given: Any, **named: Any) -> tuple[int, int]:
        torch.cuda.reset_peak_memory_stats(device)  # what was kept and is too large now has been let go
        return run_in_chunks(*given, **named)

    begin = time.perf_counter()
    with record_calls() as trace, mock.patch.object(chunks, "run_in_chunks", loop):
        selection = index_select(*arguments, out=work.out)
    torch.cuda.synchronize(device)
    took = time.perf_counter() - begin
    extra = None
    if _theirs.bytes is not None:
        extra = torch.cuda.max_memory_allocated(device) - before - _theirs.bytes
    assert selection.budget is not None
    assert selection.chunks is not None
    return Squeeze(
        what=what,
        left_bytes=left,
        budget_bytes=selection.budget.bytes,
        chunk_bytes=trace.chunked[0].chunk_bytes,
        extra_bytes=extra,
        workspace_bytes=kept_bytes(device),
        chunks=selection.chunks,
        retries=selection.retries,
        milliseconds=took * 1e3,
        equal=torch.equal(work.out.cpu(), wanted),
        within=extra is None or extra <= selection.budget.bytes,
    )


class _Theirs:
    """What others than the selection have allocated since it began; None if that is never the same."""

    bytes: int | None = 0


_theirs = _Theirs()


@contextmanager
def _taken_during_a_call(device: torch.device) -> Iterator[None]:
    """Another thread, on another stream, takes what is free right after the budget was worked out from it."""
    held: list[torch.Tensor] = []

    def take() -> None:
        with torch.cuda.stream(torch.cuda.Stream(device)):
            size = torch.cuda.mem_get_info(device)[0] - TAKEN_DURING
            held.append(torch.empty(max(size, 0), dtype=torch.uint8, device=device))
            _theirs.bytes = held[0].nbytes

    def reading(where: torch.device) -> MemoryReading:
        told = memory_reading(where)
        if not held:
            thread = threading.Thread(target=take)
            thread.start()
            thread.join()
        return told

    with mock.patch.object(chunks, "memory_reading", reading):
        try:
            yield
        finally:
            _theirs.bytes = 0
            held.clear()


@contextmanager
def _ever_changing(device: torch.device) -> Iterator[None]:
    """Another thread, on another stream, takes most of what is free and gives it back, until the block ends."""
    ended, most = threading.Event(), 512 * MIB
    _theirs.bytes = None

    def take_and_give() -> None:
        with torch.cuda.stream(torch.cuda.Stream(device)):
            while not ended.is_set():
                for size in (most, most // 2, most // 8):
                    with suppress(torch.OutOfMemoryError):
                        held = torch.empty(size, dtype=torch.uint8, device=device)
                        time.sleep(0.003)
                        del held
                    time.sleep(0.001)

    thread = threading.Thread(target=take_and_give)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        _theirs.bytes = 0
