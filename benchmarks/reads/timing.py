"""Fair timing: every statement in the same compiled loop, all contenders in turn in every round, on one core."""

from __future__ import annotations

import gc
import os
import random
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Any

from benchmarks.reads.contender import Subject

UNROLLED = 20
"""How often a statement stands in the body of its loop."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: rounds, and the time that one contender gets in each, in microseconds.

    With `local_names` statements read local variables, and an empty loop is subtracted: the measure under which a plain
    attribute looks cheapest, and every ratio largest.

    Many short slices bear other load on the machine better than few long ones: most of them run undisturbed, and the
    median is one of those.
    """

    rounds: int
    slice_us: int
    local_names: bool = False


@dataclass(frozen=True, slots=True)
class Timed:
    """Nanoseconds per statement: the median over all rounds, and the interquartile range."""

    median_ns: float
    iqr_ns: float


Loop = Callable[[int], int]


def loop_of(statement: str, names: Mapping[str, Any], *, local: bool = False) -> Loop:
    """A function that runs a statement `UNROLLED` times per turn and returns the nanoseconds that its turns took.

    The statement's names are globals, for every contender alike, as an imported `settings` is in the code that reads
    it; no call stands around it. What the loop costs stays in, a twentieth of a turn with every statement: an empty
    loop to subtract would be one of `pass`, which CPython runs as an instruction of its own.

    Args:
        statement: what to run.
        names: what its names are.
        local: make them local variables.
    """
    parameters = "".join(f", {name}={name}" for name in names) if local else ""
    body = "\n".join(f"        {statement}" for _ in range(UNROLLED))
    source = f"def loop(turns{parameters}):\n    begin = clock()\n    for _ in range(turns):\n{body}\n"
    scope = {**names, "clock": perf_counter_ns}
    exec(compile(f"{source}    return clock() - begin\n", "<loop>", "exec"), scope)  # noqa: S102 - our own statements
    return scope["loop"]


def timed_in_turn(subjects: Mapping[str, Subject], effort: Effort) -> dict[str, Timed]:
    """Time all subjects in one process, each once a round in an order that changes, and take the medians.

    Args:
        subjects: what to time, by name.
        effort: how long.
    """
    local = effort.local_names
    loops = {name: loop_of(subject.statement, subject.names, local=local) for name, subject in subjects.items()}
    empty = loop_of("pass", {})
    overheads: list[float] = []
    turns = {name: copy_context().run(_turns, loops[name], it, effort.slice_us) for name, it in subjects.items()}
    found: dict[str, list[float]] = {name: [] for name in subjects}
    order, shuffle = list(subjects), random.Random(0).shuffle  # noqa: S311 - an order, not a secret
    with _one_core(), _no_collection():
        for _ in range(effort.rounds):
            shuffle(order)
            overheads.append(empty(2000) / 2000 / UNROLLED if local else 0.0)
            for name in order:
                # In a context of its own: what one contender leaves behind there (torch a variable with each patch)
                # would be carried by every other.
                spent = copy_context().run(_slice, loops[name], subjects[name], turns[name])
                found[name].append(spent / turns[name] / UNROLLED)
    overhead = statistics.median(overheads)
    return {name: summary([sample - overhead for sample in samples]) for name, samples in found.items()}


def summary(samples: list[float]) -> Timed:
    """The median and the interquartile range."""
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timed(median, high - low)


def _slice(loop: Loop, subject: Subject, turns: int) -> int:
    """The nanoseconds of so many turns, in the subject's state."""
    with _state(subject):
        loop(1 + turns // 10)  # the first read in a new state is not the price of a read
        return loop(turns)


def _turns(loop: Loop, subject: Subject, slice_us: int) -> int:
    """How many turns fill the time slice; also runs the loop until the interpreter has specialised it."""
    with _state(subject):
        for turns in (1, 2, 20):
            spent = loop(turns)
            if spent > slice_us * 1000:
                break
    return max(1, round(slice_us * 1000 * turns / max(spent, 1)))


@contextmanager
def _state(subject: Subject) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated names are read on purpose
        with subject.around():
            yield


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process on one core, where the system lets us."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def _no_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
