"""Microseconds of a call that ranks make together: all begin at the same time, and the slowest rank counts."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.ops.timing import FLUSHED_BYTES, SLEEP_CYCLES, replay_of
from dsa_exec.cli.bench_record import Figure


class RanksClock:
    """Times calls on the current device of every rank.

    Args:
        calls: how often each is timed.
    """

    def __init__(self, calls: int) -> None:
        self._calls = calls
        self._flushed = torch.empty(FLUSHED_BYTES // 4, dtype=torch.int32, device="cuda")
        self._met = torch.zeros(1, device="cuda")

    def calls(self, run: Callable[[Any], Any], inputs: Sequence[Any]) -> Figure:
        """Calls on inputs that rotate, launched ahead of the device where they do not wait for other ranks."""
        for argument in inputs:
            run(argument)
        events = [self._around(run, inputs[number % len(inputs)]) for number in range(self._calls)]
        torch.cuda.synchronize()
        return _slowest([begin.elapsed_time(end) * 1e3 for begin, end in events])

    def replays(self, run: Callable[[Any], Any], inputs: Sequence[Any]) -> Figure:
        """Replays of a graph that has one call on each input: a call's share of it."""
        replay = replay_of(run, inputs)
        events = [self._around(replay, None) for _ in range(self._calls)]
        torch.cuda.synchronize()
        return _slowest([begin.elapsed_time(end) * 1e3 / len(inputs) for begin, end in events])

    def _around(self, run: Callable[[Any], Any], argument: Any) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(SLEEP_CYCLES)
        self._flushed.fill_(1)
        dist.all_reduce(self._met)  # none begins before all have come
        begin.record()
        run(argument)
        end.record()
        return begin, end


def _slowest(samples: list[float]) -> Figure:
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    figures = torch.tensor([statistics.median(samples), tenths[0], tenths[-1]], device="cuda", dtype=torch.float64)
    dist.all_reduce(figures, dist.ReduceOp.MAX)
    median, p10, p90 = figures.tolist()
    return Figure(median_us=median, p10_us=p10, p90_us=p90)
