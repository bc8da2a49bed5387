"""Checks work, then times it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from benchmarks.ops import (
    attention_path_work,
    attention_work,
    dense_attention_work,
    index_select_work,
    mqa_logits_work,
    paged_mqa_logits_work,
    topk_work,
)
from benchmarks.ops.bars import judged
from benchmarks.ops.extra_memory import extra_mib
from benchmarks.ops.machine import machine
from benchmarks.ops.timing import Clock, Timed
from benchmarks.ops.work import Work
from dsa_config import SettingError
from dsa_exec import record_calls
from dsa_exec.cli.bench_record import OURS, BenchRecord, Figure, Row
from dsa_exec.core.errors import OutOfMemory, UnsupportedCall
from dsa_exec.dispatch.trace import Trace

INPUT_BYTES = 6 * 2**30
"""Inputs rotate among as many sets as fit in this, two at least and four at most."""


def works() -> Iterator[Work]:
    """All work there is."""
    for module in (
        topk_work,
        mqa_logits_work,
        paged_mqa_logits_work,
        index_select_work,
        attention_work,
        dense_attention_work,
        attention_path_work,
    ):
        yield from module.works()


def measure(chosen: list[Work], calls: int, vendor: str | None, tell: Callable[[Row], None]) -> BenchRecord:
    """Measure work on the current CUDA device.

    Args:
        chosen: what.
        calls: timed calls of each.
        vendor: only vendors whose name contains this; None for all.
        tell: hears of each row when it is there.
    """
    clock = Clock(calls)
    rows: list[Row] = []
    with contextlib.suppress(KeyboardInterrupt):  # what was measured until then is a record
        for work in chosen:
            row = measured(work, clock, vendor, rows)
            torch.cuda.empty_cache()
            rows.append(row)
            tell(row)
    return BenchRecord(**machine(), calls=calls, rows=rows)


def measured(work: Work, clock: Clock, vendor: str | None, earlier: Sequence[Row] = ()) -> Row:
    """One row: checked, then timed, if ours takes the call.

    Args:
        work: what.
        clock: times it.
        vendor: only vendors whose name contains this; None for all.
        earlier: rows before it, which its bar may be about.
    """
    given = {name: str(value) for name, value in work.settings.items()}
    row = Row(
        op=work.op,
        work=work.title,
        settings=given,
        captured=work.captured,
        wrong=None,
        why="",
        floor_us=work.floor_us,
    )
    first = work.inputs(0)
    try:
        with record_calls() as trace:
            result = work.run(first)
    except (UnsupportedCall, OutOfMemory, SettingError, torch.OutOfMemoryError) as error:
        row = row.model_copy(update={"absent": {OURS: sentence(error)}})
        return row.model_copy(update=judged(work.bar, row, earlier))
    row = row.model_copy(update={"why": _why(work.op, trace), "wrong": work.wrong(first, result)})
    del result
    if row.wrong is not None:
        return row
    runs, absent = vendor_runs(work, first, vendor)
    inputs = [first, *(work.inputs(seed) for seed in range(1, _sets(first, captured=work.captured)))]
    all_runs = {OURS: work.run, **runs}
    timed = (clock.replayed if work.captured else clock.in_turn)(all_runs, inputs)
    extra = {name: extra_mib(run, first) for name, run in all_runs.items()} if work.weighed else {}
    figures = {name: figure(it, extra.get(name)) for name, it in timed.items()}
    ours = figures.pop(OURS)
    row = row.model_copy(
        update={
            "ours": ours,
            "tflops": work.flops / ours.median_us / 1e6 if work.unit else None,
            "gb_per_s": work.min_bytes / ours.median_us / 1e3,
            "vendors": figures,
            "absent": absent,
        }
    )
    return row.model_copy(update=judged(work.bar, row, earlier))


def _why(op: str, trace: Trace) -> str:
    """Which backend of the op ran, and why; those of the ops that it is made of."""
    decisions = [decision for decision, _ in trace.decisions.values()]
    own = [f"{it.backend.name} ({it.why})" for it in decisions if it.op == op]
    return "; ".join([*own, *(f"{it.op}: {it.backend.name}" for it in decisions if it.op != op)])


def vendor_runs(work: Work, argument: Any, wanted: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The vendors' calls that run, and why the others do not."""
    runs, absent = {}, {}
    for name, make in work.vendors.items():
        if wanted is not None and wanted not in name:
            continue
        try:
            run = make()
            run(argument)
            torch.cuda.synchronize()
        except Exception as error:  # whatever keeps it from running
            absent[name] = f"{type(error).__name__}: {sentence(error)}"
        else:
            runs[name] = run
    return runs, absent


def sentence(error: Exception) -> str:
    """The first line of what an error says."""
    return str(error).partition("\n")[0]


def _sets(argument: Any, *, captured: bool) -> int:
    if captured:
        return 4
    held = sum(part.nbytes for part in argument if isinstance(part, torch.Tensor))
    return int(max(2, min(4, INPUT_BYTES // max(held, 1))))


def figure(timed: Timed, extra: float | None = None) -> Figure:
    """What a clock found, as a record has it."""
    return Figure(median_us=timed.median_us, p10_us=timed.p10_us, p90_us=timed.p90_us, extra_mib=extra)
