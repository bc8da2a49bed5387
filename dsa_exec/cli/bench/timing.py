"""Seconds of forward passes, in turn for each side, with everything done on the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from dsa_exec.cli.bench.failures import FailedRun, reason_of
from dsa_exec.cli.bench.passes import Text, forward
from dsa_exec.cli.bench.report import Figure, Phase, Ratio
from dsa_exec.cli.bench.sides import Side

WARM_UPS = 1
"""Untimed repetitions of each side. The check before them has compiled what there is to compile."""


class Cache(Protocol):
    """What is asked of a cache between repetitions."""

    def reset(self) -> None:
        """Forget every token."""

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens."""


class Runner:
    """One side of one piece of work, with a cache of its own that has read the text once.

    Args:
        model: attached to.
        side: whose settings hold.
        text: to read.
        cache: made under these settings.
        phase: what is timed of it.
    """

    def __init__(self, model: Any, side: Side, text: Text, cache: Cache, phase: Phase) -> None:
        self._model = model
        self._side = side
        self._text = text
        self._cache = cache
        self._phase = phase
        self._device = torch.device(model.device)
        self.peak_bytes: int | None = None

    def seconds(self) -> list[float]:
        """One repetition: the seconds of the prompt, or of each token after it."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        with self._side.in_force(), torch.no_grad():
            if self._phase == "prefill":
                self._cache.reset()
                passes = [self._text.prompt]
            else:
                passes = list(self._text.following.split(1, 1))
                self._cache.crop(-len(passes))
            seconds = [self._timed(inputs) for inputs in passes]
        if self._device.type == "cuda":
            self.peak_bytes = max(self.peak_bytes or 0, torch.cuda.max_memory_allocated(self._device))
        return seconds

    def _timed(self, inputs: torch.Tensor) -> float:
        self._wait()
        start = time.perf_counter()
        forward(self._model, inputs, self._cache)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def time_in_turn(
    runners: Sequence[Runner], repetitions: int, on_repetition: Callable[[], None]
) -> list[list[list[float]]]:
    """The seconds of each repetition of each runner.

    Each repetition runs all of them, in one order and then in the other, so that what changes with time changes for
    all.

    Raises:
        FailedRun: one of them raised something.
    """
    samples: list[list[list[float]]] = [[] for _ in runners]
    for repetition in range(-WARM_UPS, repetitions):
        numbers = range(len(runners)) if repetition % 2 == 0 else reversed(range(len(runners)))
        for number in numbers:
            try:
                seconds = runners[number].seconds()
            except Exception as error:  # a backend may raise anything
                raise FailedRun(number, reason_of(error)) from None
            if repetition >= 0:
                samples[number].append(seconds)
        on_repetition()
    return samples


def figure_of(repetitions: Sequence[Sequence[float]]) -> Figure:
    """The median of all passes, and where a tenth of them from either end lies."""
    milliseconds = [1e3 * seconds for passes in repetitions for seconds in passes]
    tenths = statistics.quantiles(milliseconds, n=10, method="inclusive") if len(milliseconds) > 1 else milliseconds
    return Figure(
        median_ms=statistics.median(milliseconds), p10_ms=tenths[0], p90_ms=tenths[-1], samples=len(milliseconds)
    )


def ratio_of(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> Ratio:
    """Time of b over time of a: of the medians of each repetition, the median, the least and the most."""
    ratios = [statistics.median(right) / statistics.median(left) for left, right in zip(a, b, strict=True)]
    return Ratio(median=statistics.median(ratios), least=min(ratios), most=max(ratios))
