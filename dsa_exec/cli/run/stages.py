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

    @property
    def done(self) -> list[Stage]:
        """All that there were."""
        return [Stage(name=name, seconds=round(seconds, 6)) for name, seconds in self._seconds.items()]

    def add(self, name: str, seconds: float) -> None:
        """Count seconds of a stage."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the seconds of a block, unless it fails."""
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)
