"""Records what calls did, for reports and tests: `with record_calls() as trace: ...`. Seen by this context only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
        least_bytes: what the smallest chunk takes: a row, or with paged keys the rows of a request.
        budget: what a chunk was allowed to take.
    """

    rows: int
    chunks: int
    row_bytes: int
    least_bytes: int
    budget: LogitsBudget


@dataclass(slots=True)
class Trace:
    """What the calls under a `record_calls()` did.

    Attributes:
        decisions: by op and backend, the first decision and how many there were.
        chunked: every call of `index_select`.
    """

    decisions: dict[tuple[str, str], tuple[Decision, int]] = field(default_factory=dict)
    chunked: list[ChunkedCall] = field(default_factory=list)


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


def note_chunked(call: ChunkedCall) -> None:
    """Add a chunked call to the trace, if one is being recorded."""
    if (trace := _trace.get()) is not None:
        trace.chunked.append(call)
