"""Records what calls did, for reports and tests: `with record_calls() as trace: ...`. Seen by this context only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dsa_exec.core.hardware import MemoryReading
from dsa_exec.memory.logits_budget import LogitsBudget

if TYPE_CHECKING:
    from dsa_exec.dispatch.select import Decision


@dataclass(frozen=True, slots=True)
class ChunkedCall:
    """One call that was done in chunks of rows.

    Attributes:
        rows: how many.
        chunks: in how many chunks.
        row_bytes: what a row's logits take.
        least_bytes: the most that the smallest chunk takes, of a row or with paged keys of the rows of a request. More
            than the budget: it was exceeded.
        budget: what a chunk was allowed to take.
        chunk_bytes: the most that a chunk took, with all that was allocated beside the logits.
        retries: how often a chunk was done again, of fewer rows, since memory ran out.
    """

    rows: int
    chunks: int
    row_bytes: int
    least_bytes: int
    budget: LogitsBudget
    chunk_bytes: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class MemoryRanOut:
    """A chunk for which there was no memory.

    Attributes:
        op: what was done.
        device: where.
        rows: of the chunk.
        next_rows: how many were tried next; 0 if it was given up.
        needed_bytes: the most that the chunk takes.
        memory: what there was, after all had been let go of that could be.
    """

    op: str
    device: str
    rows: int
    next_rows: int
    needed_bytes: int
    memory: MemoryReading


@dataclass(slots=True)
class Trace:
    """What the calls under a `record_calls()` did.

    Attributes:
        decisions: by op and backend, the first decision and how many there were.
        chunked: every call of `index_select`.
        out_of_memory: every time that memory ran out within a call.
    """

    decisions: dict[tuple[str, str], tuple[Decision, int]] = field(default_factory=dict)
    chunked: list[ChunkedCall] = field(default_factory=list)
    out_of_memory: list[MemoryRanOut] = field(default_factory=list)


_trace: ContextVar[Trace | None] = ContextVar("dsa_exec_trace", default=None)


@contextlib.contextmanager
def record_calls() -> Iterator[Trace]:
    """Record the calls of this context until the block ends."""
    trace = Trace()
    token = _trace.set(trace)
    try:
        yield trace
    finally:
        _trace.reset(token)


def note_decision(decision: Decision) -> None:
    """Add a decision to the trace, if one is being recorded."""
    if (trace := _trace.get()) is not None:
        key = (decision.op, decision.backend.name)
        first, count = trace.decisions.get(key, (decision, 0))
        trace.decisions[key] = (first, count + 1)


def is_recorded() -> bool:
    """Whether a trace is being recorded."""
    return _trace.get() is not None


def note_chunked(call: ChunkedCall) -> None:
    """Add a chunked call to the trace, if one is being recorded."""
    if (trace := _trace.get()) is not None:
        trace.chunked.append(call)


def note_out_of_memory(event: MemoryRanOut) -> None:
    """Add an event to the trace, if one is being recorded."""
    if (trace := _trace.get()) is not None:
        trace.out_of_memory.append(event)
