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


class Clock:
    """Times calls on the current device.

    Args:
        calls: how often each is timed.
    """

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._flushed = torch.empty(FLUSHED_BYTES // 4, dtype=torch.int32, device="cuda")

    def in_turn(self, runs: Mapping[str, Callable[[Any], Any]], inputs: Sequence[Any]) -> dict[str, Timed]:
        """Time several functions on the same inputs, one call of each after the other."""
        events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in runs}
        for number in range(self._calls):
            for name, run in runs.items():
                events[name].append(self._around(run, inputs[number % len(inputs)]))
        torch.cuda.synchronize()
        return {name: _summary([begin.elapsed_time(end) * 1e3 for begin, end in of]) for name, of in events.items()}

    def replayed(self, runs: dict[str, Callable[[Any], Any]], inputs: Sequence[Any]) -> dict[str, Timed]:
        """The same for graphs that have one call on each input: a call's share of a replay."""
        graphs = {name: _graph(run, inputs) for name, run in runs.items()}
        replays = {name: functools.partial(_replay, graph) for name, (graph, _) in graphs.items()}
        whole = self.in_turn(replays, [None])
        count = len(inputs)
        return {
            name: Timed(timed.median_us / count, timed.p10_us / count, timed.p90_us / count)
            for name, timed in whole.items()
        }

    def _around(self, run: Callable[[Any], Any], argument: Any) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(SLEEP_CYCLES)
        self._flushed.fill_(1)
        begin.record()
        run(argument)
        end.record()
        return begin, end


def _graph(run: Callable[[Any], Any], inputs: Sequence[Any]) -> tuple[torch.cuda.CUDAGraph, list[Any]]:
    """A graph of one call on each input, and what the calls returned, which must live as long."""
    run(inputs[0])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        returned = [run(argument) for argument in inputs]
    return graph, returned


def _replay(graph: torch.cuda.CUDAGraph, _: Any) -> None:
    graph.replay()


def _summary(samples: list[float]) -> Timed:
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    return Timed(statistics.median(samples), tenths[0], tenths[-1])
