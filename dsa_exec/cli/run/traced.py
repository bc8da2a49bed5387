"""What a trace says of the calls of a run, as parts of its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsa_exec.cli.report import BackendInUse, LogitsUse

if TYPE_CHECKING:
    from dsa_exec.dispatch.trace import Trace


def backends_in_use(trace: Trace) -> list[BackendInUse]:
    """Every backend that ran, by op, and why."""
    return [
        BackendInUse(op=op, backend=backend, choice=decision.choice, why=decision.why, calls=calls)
        for (op, backend), (decision, calls) in sorted(trace.decisions.items())
    ]


def logits_use(trace: Trace) -> LogitsUse | None:
    """The largest call of the indexer, and what it was chunked under; None where there was none."""
    if not trace.chunked:
        return None
    largest = max(trace.chunked, key=lambda call: call.rows * call.row_bytes)
    return LogitsUse(
        budget_bytes=largest.budget.bytes,
        static_bytes=largest.budget.static_bytes,
        live_bytes=largest.budget.live_bytes,
        cap_bytes=largest.budget.cap_bytes,
        rows=largest.rows,
        row_bytes=largest.row_bytes,
        chunks=largest.chunks,
        chunk_bytes=largest.chunk_bytes,
        least_bytes=largest.least_bytes,
        is_too_small=largest.budget.bytes < largest.least_bytes,
        calls=len(trace.chunked),
        retries=sum(call.retries for call in trace.chunked),
    )
