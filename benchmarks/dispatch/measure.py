"""Times an ordinary call of each op with a backend that does nothing, so that what is left is the way to it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import gc
import importlib
import platform
import statistics
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.dispatch.record import DispatchRecord, DispatchRow
from dsa_exec.dispatch.registry import backends, op_function, op_names
from dsa_exec.dispatch.select import decide, forget_decisions, run

BAR_US = 5.0
LOOPS = 200


def measure(rounds: int) -> DispatchRecord:
    """Every op's figures, on the GPU if there is one, else with tensors that have no data."""
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    with torch.no_grad():
        rows = [_row(op, device, rounds) for op in op_names()]
    return DispatchRecord(
        python=platform.python_version(),
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "none: tensors without data",
        processor=processor(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        rounds=rounds,
        bar_us=BAR_US,
        rows=rows,
    )


def _row(op: str, device: torch.device, rounds: int) -> DispatchRow:
    contract = importlib.import_module(f"dsa_exec.ops.{op}.contract").CONTRACT
    args = contract.cases[0].make(torch.Generator().manual_seed(0), device)
    function = op_function(op)
    with _doing_nothing(op) as calls:
        function(**args)
        call = calls[-1]
        calls.clear()
        chosen = decide(op, call, device)
        direct, selected, public = _in_turn(
            (lambda: chosen.backend.run(call), lambda: run(op, call, device), lambda: function(**args)), rounds
        )
    select_us = [a - b for a, b in zip(selected, direct, strict=True)]
    checks_us = [a - b for a, b in zip(public, selected, strict=True)]
    return DispatchRow(
        op=op,
        backend=chosen.backend.name,
        tensors=sum(isinstance(part, torch.Tensor) for part in _parts(call)),
        select_us=statistics.median(select_us),
        select_p90_us=statistics.quantiles(select_us, n=10)[-1],
        checks_us=statistics.median(checks_us),
        met=statistics.median(select_us) <= BAR_US,
    )


@contextlib.contextmanager
def _doing_nothing(op: str) -> Iterator[list[Any]]:
    """Every backend of the op refuses what it refuses, and does nothing but keep the first call."""
    calls: list[Any] = []

    def nothing(call: Any) -> Any:
        if not calls:
            calls.append(call)
        return ()  # nobody looks into it

    found = backends(op)
    before = dict(found)
    found.update({name: dataclasses.replace(it, run=nothing) for name, it in before.items()})
    forget_decisions()
    try:
        yield calls
    finally:
        found.update(before)
        forget_decisions()


def _in_turn(functions: tuple[Callable[[], Any], ...], rounds: int) -> list[list[float]]:
    """Microseconds of a call of each, round by round, one after the other in each round."""
    samples: list[list[float]] = [[] for _ in functions]
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds + 1):  # the first warms up
            for function, times in zip(functions, samples, strict=True):
                times.append(timeit.timeit(function, number=LOOPS) / LOOPS * 1e6)
    finally:
        gc.enable()
    return [times[1:] for times in samples]


def _parts(value: Any) -> Iterator[Any]:
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if dataclasses.is_dataclass(part):
            yield from _parts(part)
        else:
            yield part


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as told:
        for line in told:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
