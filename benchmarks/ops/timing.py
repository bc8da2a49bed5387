"""Microseconds of a call on the device: events around it, a cold L2, inputs that rotate."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

FLUSHED_BYTES = 512 * 2**20
SLEEP_CYCLES = 1_000_000
"""The device sleeps before each call, so that the host is ahead of it and its own time is not measured."""


@dataclass(frozen=True, slots=True)
class Timed:
    """The median, and where a tenth of the calls from either end lies."""

    median_us: float
    p10_us: float
    p90_us: float

    def share_of(self, calls: int) -> Timed:
        """What one of so many calls takes that were timed together."""
        return Timed(self.median_us / calls, self.p10_us / calls, self.p90_us / calls)


class Clock:
    """Times calls on the current device.

    Args:
        calls: how often each is timed.
    """

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._flushed = torch.empty(FLUSHED_BYTES // 4, dtype=torch.int32, device="cuda")

    def in_turn(
        self, runs: Mapping[str, Callable[[Any], Any]], inputs: Sequence[Any], calls: int | None = None
    ) -> dict[str, Timed]:
        """Time several functions on the same inputs, one call of each after the other, `calls` times if given."""
        events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in runs}
        for number in range(calls or self._calls):
            for name, run in runs.items():
                events[name].append(self._around(run, inputs[number % len(inputs)]))
        torch.cuda.synchronize()
        return {name: _summary([begin.elapsed_time(end) * 1e3 for begin, end in of]) for name, of in events.items()}

    def replayed(self, runs: dict[str, Callable[[Any], Any]], inputs: Sequence[Any]) -> dict[str, Timed]:
        """The same for graphs that have one call on each input: a call's share of a replay."""
        replays = {name: replay_of(run, inputs) for name, run in runs.items()}
        return {name: timed.share_of(len(inputs)) for name, timed in self.in_turn(replays, [None]).items()}

    def _around(self, run: Callable[[Any], Any], argument: Any) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(SLEEP_CYCLES)
        self._flushed.fill_(1)
        begin.record()
        run(argument)
        end.record()
        return begin, end


def replay_of(run: Callable[[Any], Any], inputs: Sequence[Any]) -> Callable[[Any], None]:
    """Replays a graph of one call on each input; with it live the graph, and what the calls returned.

    Each call is made once before: what a library prepares for its arguments, and then keeps, is no part of the graph.
    """
    for argument in inputs:
        run(argument)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        returned = [run(argument) for argument in inputs]
    return functools.partial(_replay, graph, returned)


def _replay(graph: torch.cuda.CUDAGraph, _returned: list[Any], _: Any) -> None:
    graph.replay()


def _summary(samples: list[float]) -> Timed:
    if len(samples) == 1:
        return Timed(samples[0], samples[0], samples[0])
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    return Timed(statistics.median(samples), tenths[0], tenths[-1])
