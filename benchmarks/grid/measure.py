"""Measures cases of the grid one by one: few calls of long ones, and none of what was far behind at a smaller size."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch

from benchmarks.grid.cases import Case
from benchmarks.grid.choices import Choice, choices, chosen
from benchmarks.grid.record import GridRow
from benchmarks.ops.extra_memory import extra_mib
from benchmarks.ops.measure import figure, sentence, vendor_runs
from benchmarks.ops.timing import Clock, Timed, replay_of
from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.cli.bench_record import OURS
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.out_of_memory import is_out_of_memory, release_memory

Run = Callable[[Any], Any]

TIMED_ONCE = 3.0
"""A choice that takes so many times as long as the fastest contender is timed by one call."""
LEFT_OUT = 8.0
"""One that takes so many times as long is left out at larger sizes of the same line."""
CALLS_US = 50_000.0
"""What the timed calls of a contender may take together; there are `LEAST_CALLS` all the same."""
LEAST_CALLS = 5
INPUTS_OF_A_GRAPH = 4


def measure(
    todo: Iterable[Case],
    clock: Clock,
    calls: int,
    seconds: float | None,
    without: Sequence[str] = (),
    now: Callable[[], float] = time.monotonic,
) -> Iterator[GridRow]:
    """Measure on the current CUDA device.

    Args:
        todo: what, line by line.
        clock: times it.
        calls: the most timed calls of each contender.
        seconds: after so many nothing more is measured: what is left is told as absent.
        without: backends whose choices are left out.
        now: the time in seconds.
    """
    begin, leaving = now(), _LeftOut(without)
    for case in todo:
        if seconds is not None and now() - begin >= seconds:
            yield case.row(absent=f"not measured: the {seconds:g} seconds of --seconds were over")
        elif case.absent is not None:
            yield case.row(absent=case.absent)
        else:
            yield _row_or_reason(case, clock, calls, leaving)


class _LeftOut:
    """Choices that are not timed: of backends that nobody asked for, or far behind on the line of a case."""

    def __init__(self, without: Sequence[str]) -> None:
        self._without = without
        self._told: dict[tuple[Any, ...], str] = {}

    def why(self, case: Case, choice: Choice) -> str | None:
        """Why a choice is left out of a case, if it is."""
        for name in self._without:
            if name in choice.settings.values():
                return f"left out by --without {name}"
        return self._told.get((case.line, choice.name))

    def note(self, case: Case, choice: str, times: float) -> None:
        """Keep in mind how many times as long as the fastest a choice took."""
        if times > LEFT_OUT:
            self._told[case.line, choice] = f"took {times:.1f} x the fastest at {case.work.name}"


def _row_or_reason(case: Case, clock: Clock, calls: int, leaving: _LeftOut) -> GridRow:
    """One row; where memory runs out, or something fails, the reason."""
    try:
        return _row(case, clock, calls, leaving)
    except Exception as error:  # the other sizes are measured all the same
        told = f"{type(error).__name__}: {sentence(error)}"
        row = case.row(absent=told) if is_out_of_memory(error) else case.row(wrong=told)
    finally:
        _release()
    return row


def _release() -> None:
    with contextlib.suppress(RuntimeError):  # of a device that a kernel has broken, every call fails
        release_memory(torch.device("cuda", torch.cuda.current_device()))


def _row(case: Case, clock: Clock, calls: int, leaving: _LeftOut) -> GridRow:
    work = case.work
    first = work.inputs(0)
    with record_calls() as trace:
        result = work.run(first)
    wrong, auto = work.wrong(first, result), chosen(work.op, case.phase, trace)
    del result
    if wrong is not None:
        return case.row(wrong=wrong, auto=auto)
    named, left_out, broken = _choices(case, auto, first, leaving)
    peers, absent_peers = vendor_runs(work, first, None)
    runs, calls_of_a_run = {OURS: work.run, **named, **peers}, 1
    if work.captured:
        inputs = [first, *(work.inputs(seed) for seed in range(1, INPUTS_OF_A_GRAPH))]
        runs, failed = _replays(runs, inputs)
        broken.update({name: why for name, why in failed.items() if name in named})
        absent_peers.update({name: why for name, why in failed.items() if name in peers})
        calls_of_a_run = len(inputs)
    timed = {
        name: it.share_of(calls_of_a_run) for name, it in _timed(runs, first, clock, calls, frozenset(named)).items()
    }
    fastest = min(it.median_us for it in timed.values())
    for name in named.keys() & timed.keys():
        leaving.note(case, name, timed[name].median_us / fastest)
    extra = extra_mib(work.run, first) if case.phase == "prefill" and work.weighed else None
    ours = figure(timed[OURS], extra)
    return case.row(
        auto=auto,
        ours=ours,
        choices={auto: ours, **{name: figure(timed[name]) for name in named if name in timed}},
        left_out=left_out,
        broken=broken,
        peers={name: figure(timed[name]) for name in peers if name in timed},
        absent_peers=absent_peers,
    )


class _Named(NamedTuple):
    """The single choices beside that of `auto`, and what is told of the others."""

    runs: dict[str, Run]
    left_out: dict[str, str]
    broken: dict[str, str]


def _choices(case: Case, auto: str, first: Any, leaving: _LeftOut) -> _Named:
    found = _Named({}, {}, {})
    for choice in choices(case.work.op, case.phase):
        if choice.name == auto:
            continue
        if (why := leaving.why(case, choice)) is not None:
            found.left_out[choice.name] = why
            continue
        run = _under(choice, case.work.run)
        try:
            run(first)
            torch.cuda.synchronize()
        except UnsupportedCall as error:
            found.left_out[choice.name] = sentence(error)
        except Exception as error:
            told = found.left_out if is_out_of_memory(error) else found.broken
            told[choice.name] = f"{type(error).__name__}: {sentence(error)}"
        else:
            found.runs[choice.name] = run
    return found


def _under(choice: Choice, run: Run) -> Run:
    def named(argument: Any) -> Any:
        with settings.override(**choice.settings):
            return run(argument)

    return named


def _replays(runs: dict[str, Run], inputs: Sequence[Any]) -> tuple[dict[str, Run], dict[str, str]]:
    """Replays of a graph of each, and why there are none of some."""
    replays, failed = dict[str, Run](), dict[str, str]()
    for name, run in runs.items():
        try:
            replays[name] = replay_of(run, inputs)
        except Exception as error:
            if name == OURS:
                raise
            failed[name] = f"not captured: {sentence(error)}"
    return replays, failed


def _timed(
    runs: dict[str, Run], argument: Any, clock: Clock, calls: int, may_be_far: frozenset[str]
) -> dict[str, Timed]:
    """One call of each, and then as many as there is time for of those that are not far behind."""
    once = clock.in_turn(runs, [argument], 1)
    most = TIMED_ONCE * min(it.median_us for it in once.values())
    near = {name: run for name, run in runs.items() if name not in may_be_far or once[name].median_us <= most}
    longest = max(once[name].median_us for name in near)
    return {**once, **clock.in_turn(near, [argument], max(LEAST_CALLS, min(calls, int(CALLS_US / longest))))}
