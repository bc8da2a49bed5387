"""Times what the budget and the chunks cost on each call, apart from the driver's answer and from the work itself."""

from __future__ import annotations

import gc
import itertools
import statistics
import timeit
from collections.abc import Callable
from unittest import mock

from benchmarks.budget.record import Cost
from benchmarks.budget.work import Prefill
from dsa_config import settings
from dsa_exec.core.hardware import MemoryReading, memory_reading
from dsa_exec.core.logits_workspace import LogitsWorkspace, kept_workspace
from dsa_exec.dispatch.chunked import run_in_chunks
from dsa_exec.dispatch.select import Decision, decide
from dsa_exec.ops import index_select
from dsa_exec.ops.index_select import chunks

BAR_US = 5.0
LOOPS = 200
ROWS, WIDTH = 1024, 131_072
"""One chunk of 512 MiB, if there is room."""

MIB = 2**20


def decision_of(work: Prefill) -> Decision:
    """Who runs the selection, and what it takes."""
    arguments, workspace = work.arguments(), LogitsWorkspace(work.q.device)
    call = index_select.Call(*arguments, settings.fuse_topk, settings.mqa_logits_backend, workspace)
    return decide("index_select", call, work.q.device)


def costs(work: Prefill, rounds: int) -> list[Cost]:
    """The parts, each timed on its own, round by round."""
    device, footprint = work.q.device, decision_of(work).footprint
    reading, on_cuda = memory_reading(device), work.q.is_cuda
    others = itertools.cycle(
        MemoryReading(reading.total_bytes, reading.free_bytes - MIB * number) for number in range(2048)
    )

    def decision(memory: MemoryReading | None = reading) -> object:
        return chunks.plan_now(device, ROWS, 1, WIDTH, footprint, memory)

    budget, plan = chunks.plan_now(device, ROWS, 1, WIDTH, footprint, reading)

    def done() -> None:
        workspace = kept_workspace(device, on_cuda=on_cuda)
        workspace.bound(plan.workspace_bytes, footprint.own_row_bytes, budget.bytes)
        run_in_chunks("nothing", ROWS, plan.units_at_once, _nothing, footprint.bytes, device=device)

    timed: list[tuple[str, Callable[[], object], float | None]] = [
        ("the decision: settings, budget, chunks", decision, BAR_US),
        ("the same with other memory at every call", lambda: decision(next(others)), BAR_US),
        ("the workspace found, and the loop", done, None),
        ("the driver and the allocator asked what is free", lambda: memory_reading(device), None),
        ("the decision with their answer", lambda: decision(None), None),
    ]
    return [_cost(what, function, bar_us, rounds) for what, function, bar_us in timed]


def queries_per_call(work: Prefill, context: int) -> int:
    """How often the driver is asked in a call of several chunks."""
    q, head_weights, keys, k = work.arguments(context)
    with (
        mock.patch.object(chunks, "memory_reading", side_effect=memory_reading) as asked,
        mock.patch("dsa_exec.memory.logits_budget.ASKED_ELEMENTS", 1),
        settings.override(mqa_logits_max_chunk_bytes=2**20),
    ):
        selection = index_select.index_select(q, head_weights, keys, k, out=work.out)
    assert selection.chunks is not None
    assert selection.chunks > 1
    return asked.call_count


def _nothing(_: slice) -> None:
    return None


def _cost(what: str, function: Callable[[], object], bar_us: float | None, rounds: int) -> Cost:
    gc.collect()
    gc.disable()
    try:
        samples = [timeit.timeit(function, number=LOOPS) / LOOPS * 1e6 for _ in range(rounds + 1)][1:]
    finally:
        gc.enable()
    median = statistics.median(samples)
    met = bar_us is None or median <= bar_us
    p90 = statistics.quantiles(samples, n=10)[-1]
    return Cost(what=what, median_us=median, p90_us=p90, bar_us=bar_us, met=met)
