"""Captures a step as a graph once, and replays it on other lengths while the settings of the capture hold.

A graph replays no Python: whatever was chosen by settings while it was captured is frozen in it. What may change
between replays are the values in the step's tensors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, Protocol, TypeVar

import torch

from dsa_config import settings
from dsa_config.tracking import Guard, Recording
from dsa_exec.core.errors import DsaError

Given = ParamSpec("Given")
Result = TypeVar("Result")

NOT_FROZEN = frozenset({"debug_log_decisions"})
"""Settings that are read during a capture and change nothing about what is captured."""


class UnsteadyCapture(DsaError, RuntimeError):
    """Settings did not keep one value from the begin of a capture to its end: `settings`, their names."""

    def __init__(self, what: str, names: tuple[str, ...]) -> None:
        self.settings = names
        told = f"{', '.join(names)} changed while {what} was captured, or was overridden within what was captured"
        super().__init__(f"{told}; capture it again, with overrides around the capture and the replays")


class Graph(Protocol):
    """What captures and replays: a CUDA graph, or what stands for one."""

    def capture(self, run: Callable[[], Result]) -> Result:
        """Run the function, once or more, and remember what it does; what it returned the last time."""

    def replay(self) -> None:
        """Do again what was remembered, on the values that the same tensors have now."""


class CudaGraph:
    """A graph of torch's, for a function that works on tensors that stay.

    Attributes:
        graph: torch's object, for its pool.
    """

    def __init__(self, pool: Any = None, device: torch.device | None = None) -> None:
        """Make an empty one.

        Args:
            pool: memory that several graphs share, such as `other.graph.pool()`.
            device: whose work is captured; the current one if not given.
        """
        self.graph = torch.cuda.CUDAGraph()
        self._pool = pool
        self._device = torch.device("cuda", torch.cuda.current_device()) if device is None else device

    def capture(self, run: Callable[[], Result]) -> Result:
        """Run the function once, since compiling and loading cannot be captured, and capture a second run."""
        with torch.cuda.device(self._device):
            run()
            torch.cuda.synchronize()
            # torch's own stream for captures is one for the process, on the device that was current first.
            with torch.cuda.graph(self.graph, pool=self._pool, stream=_capture_stream(self._device)):
                return run()

    def replay(self) -> None:
        """Replay on the current stream."""
        self.graph.replay()


@functools.cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all captures of a device, so that those with one pool share its memory."""
    return torch.cuda.Stream(device)


class CapturedStep(Generic[Given, Result]):
    """What was captured, to be replayed.

    Attributes:
        what: what it is, in words.
        result: what the captured function returned: each replay fills the same tensors.
        guard: the settings that were read during the capture, with their values; None if none was.
    """

    def __init__(
        self,
        what: str,
        graph: Graph,
        run: Callable[[], Result],
        refresh: Callable[Given, object],
        result: Result,
        guard: Guard | None,
    ) -> None:
        self.what = what
        self.result = result
        self.guard = guard
        self._graph = graph
        self._run = run  # a graph does not keep the tensors alive that it works on: what holds them does
        self._refresh = refresh

    def replay(self, *given: Given.args, **named: Given.kwargs) -> Result:
        """Refresh what the graph reads, and replay it.

        Args:
            given: what `refresh` takes.
            named: likewise.

        Returns:
            `result`, filled anew.

        Raises:
            Stale: a setting that was read during the capture has another value now. Nothing was refreshed or replayed.
            ArgumentError: of `refresh`.
        """
        if self.guard is not None:
            self.guard.check()
        self._refresh(*given, **named)
        self._graph.replay()
        return self.result


def capture_step(
    run: Callable[[], Result],
    refresh: Callable[Given, object],
    *,
    what: str = "the captured step",
    graph: Graph | None = None,
) -> CapturedStep[Given, Result]:
    """Capture a step.

    Args:
        run: the layers of the step: it takes nothing and works on tensors that stay, such as those of a `Step`.
        refresh: gives these tensors their values before each replay, outside the graph: `Step.refresh`,
            `DraftSteps.refresh`, or a function that also copies queries.
        what: what is captured, in words, for errors.
        graph: what captures; a new `CudaGraph` if not given.

    Raises:
        UnsteadyCapture: a setting changed meanwhile, so that the graph is of no one configuration.
    """
    graph = CudaGraph() if graph is None else graph
    with settings.record_reads() as recorded:
        result = graph.capture(run)
    guard = _guard(recorded, what)
    step = CapturedStep(what, graph, run, refresh, result, guard)
    settings.passed("capture", f"{what} was captured", made=[step])
    return step


def _guard(recorded: Recording, what: str) -> Guard | None:
    reads = {name: value for name, value in recorded.reads.items() if name not in NOT_FROZEN}
    if not reads:
        return None
    guard = settings.guard(*reads, what=what)
    unsteady = [name for name, value in reads.items() if name in recorded.unstable or guard.values[name] != value]
    if unsteady:
        raise UnsteadyCapture(what, tuple(unsteady))
    return guard
