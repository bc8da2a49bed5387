"""Seconds of the stages of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from dsa_exec.cli.report import Stage


class Stages:
    """Seconds of each stage, in the order in which they first came. What comes again is added."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._passes: dict[str, tuple[int, float]] = {}

    @property
    def done(self) -> list[Stage]:
        """All that there were."""
        return [self._stage(name, seconds) for name, seconds in self._seconds.items()]

    def add(self, name: str, seconds: float, tokens: int | None = None) -> None:
        """Count seconds of a stage.

        Args:
            name: of the stage.
            seconds: that it took.
            tokens: that were read or made in these seconds; None: nothing was, as in a pass that was interrupted.
        """
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds
        if tokens is not None:
            before, spent = self._passes.get(name, (0, 0.0))
            self._passes[name] = before + tokens, spent + seconds

    def _stage(self, name: str, seconds: float) -> Stage:
        tokens, spent = self._passes.get(name, (None, 0.0))
        rate = round(tokens / spent, 3) if tokens and spent else None
        return Stage(name=name, seconds=round(seconds, 6), tokens=tokens, tokens_per_s=rate)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of a block, unless it fails."""
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)
