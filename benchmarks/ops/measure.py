"""Checks work, then times it."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.ops import (
    attention_path_work,
    attention_work,
    dense_attention_work,
    mqa_logits_work,
    paged_mqa_logits_work,
    topk_work,
)
from benchmarks.ops.timing import Clock, Timed
from benchmarks.ops.work import Bar, Work
from dsa_exec import record_calls
from dsa_exec.cli.bench_record import BenchRecord, Figure, Row
from dsa_exec.core.hardware import capabilities
from dsa_exec.core.vendors import installed_distributions, installed_version

OURS = "ours"
SGLANG_KERNELS = "sglang-kernel"
INPUT_BYTES = 6 * 2**30
"""Inputs rotate among as many sets as fit in this, two at least and four at most."""


def works() -> Iterator[Work]:
    """All work there is."""
    for module in (
        topk_work,
        mqa_logits_work,
        paged_mqa_logits_work,
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
            row = _row(work, clock, vendor)
            torch.cuda.empty_cache()
            rows.append(row)
            tell(row)
    hw = capabilities(torch.device("cuda"))
    return BenchRecord(
        device=torch.cuda.get_device_name(),
        arch=hw.arch,
        torch=hw.torch_version,
        triton=hw.triton_version,
        vendors=_versions(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        calls=calls,
        rows=rows,
    )


def _versions() -> dict[str, str]:
    """Those of the packages that ours are compared with."""
    found = installed_distributions()
    other = installed_version(SGLANG_KERNELS)
    return found if other is None else {**found, SGLANG_KERNELS: other}


def _row(work: Work, clock: Clock, vendor: str | None) -> Row:
    first = work.inputs(0)
    with record_calls() as trace:
        result = work.ours(first)
    decisions = [decision for (op, _), (decision, _) in trace.decisions.items() if op == work.op]
    why = "; ".join(f"{decision.backend.name} ({decision.why})" for decision in decisions)
    wrong = work.wrong(first, result)
    row = Row(op=work.op, work=work.name, captured=work.captured, wrong=wrong, why=why, floor_us=work.floor_us)
    if wrong is not None:
        return row
    runs, absent = _vendor_runs(work, first, vendor)
    inputs = [first, *(work.inputs(seed) for seed in range(1, _sets(first, captured=work.captured)))]
    timed = (clock.replayed if work.captured else clock.in_turn)({OURS: work.ours, **runs}, inputs)
    figures = {name: _figure(it) for name, it in timed.items()}
    ours = figures.pop(OURS)
    measured = row.model_copy(
        update={
            "ours": ours,
            "tflops": work.flops / ours.median_us / 1e6 if work.unit else None,
            "gb_per_s": work.min_bytes / ours.median_us / 1e3,
            "vendors": figures,
            "absent": absent,
        }
    )
    return measured.model_copy(update=_judged(work.bar, measured))


def _vendor_runs(work: Work, argument: Any, wanted: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """The vendors' calls that run, and why the others do not."""
    runs, absent = {}, {}
    for name, make in work.vendors.items():
        if wanted is not None and wanted not in name:
            continue
        try:
            run = make()
            run(argument)
            torch.cuda.synchronize()
        except (ImportError, RuntimeError) as error:
            absent[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            runs[name] = run
    return runs, absent


def _sets(argument: Any, *, captured: bool) -> int:
    if captured:
        return 4
    held = sum(part.nbytes for part in argument if isinstance(part, torch.Tensor))
    return int(max(2, min(4, INPUT_BYTES // max(held, 1))))


def _figure(timed: Timed) -> Figure:
    return Figure(median_us=timed.median_us, p10_us=timed.p10_us, p90_us=timed.p90_us)


def _judged(bar: Bar | None, row: Row) -> dict[str, Any]:
    if bar is None or row.ours is None:
        return {}
    if bar.us is not None:
        return {"bar": f"at most {bar.us:g} us", "bar_met": row.ours.median_us <= bar.us}
    assert bar.ratio is not None
    met = None if row.ratio is None else row.ratio <= bar.ratio
    return {"bar": f"at most {bar.ratio:g} x the vendor", "bar_met": met}
