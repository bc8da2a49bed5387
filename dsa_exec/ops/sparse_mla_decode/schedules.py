"""flash_mla's decode schedules, one for each shape of a call.

A schedule is an object that the first call with it fills, and later calls of the same shapes follow. Without lengths of
their own (`topk_length`, which this package does not pass) it depends on shapes alone, so that it is kept for the next
layer and the next step: filling it takes about as long as decoding one request.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch

from dsa_exec.core.hardware import is_capturing

MOST_KEPT = 1024
"""Schedules that are kept. None is ever dropped: a captured graph may read it whenever it is replayed."""


@dataclass(slots=True)
class _Kept:
    """A schedule that was filled outside of any graph.

    Attributes:
        schedule: the library's object.
        stream: on which the filling was queued.
        flag: host memory, not zero once the filling is over; None once that was seen.
    """

    schedule: Any
    stream: int
    flag: torch.Tensor | None

    def can_be_read(self, stream: int, *, capturing: bool) -> bool:
        """Whether work that is queued now on a stream will find it filled. A graph may be replayed on any stream."""
        if self.flag is not None and int(self.flag):
            self.flag = None
        return self.flag is None or (stream == self.stream and not capturing)


_kept: dict[Hashable, _Kept] = {}
_numbers = [itertools.count()]  # of flags; taking the next is one step, whichever thread does it


def with_schedule(module: Any, device: torch.device, shapes: tuple[int, ...], attend: Callable[[Any], Any]) -> Any:
    """Call a function with a schedule for these shapes: one that is filled already, or a fresh one, which it fills.

    A fresh one is not kept while a graph is captured: every replay fills it again, in memory of the graph.

    Args:
        module: flash_mla.
        device: where.
        shapes: all sizes that the schedule depends on.
        attend: takes the schedule.
    """
    capturing = is_capturing(device)
    stream = _stream(device)
    key = (module.get_mla_metadata, device, shapes)
    kept = _kept.get(key)
    if kept is not None and kept.can_be_read(stream, capturing=capturing):
        return attend(kept.schedule)
    schedule = module.get_mla_metadata()[0]
    returned = attend(schedule)
    if kept is None and not capturing and (number := next(_numbers[0])) < MOST_KEPT:
        _kept[key] = _Kept(schedule, stream, _flag(device, number))
    return returned


def forget_schedules() -> None:
    """For tests: as if none had been filled yet."""
    _kept.clear()
    _numbers[0] = itertools.count()


def _stream(device: torch.device) -> int:
    """The current stream of the device."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def _flag(device: torch.device, number: int) -> torch.Tensor | None:
    """Host memory that is set when what is queued now on the current stream is over; None if nothing is queued.

    Unlike an event it can be looked at while a graph is captured.
    """
    if device.type != "cuda":
        return None
    flag = _flags()[number].zero_()
    flag.copy_(torch.ones((), dtype=torch.uint8, device=device), non_blocking=True)
    return flag


@functools.cache
def _flags() -> torch.Tensor:
    # A tensor made under inference_mode could not be written to outside of it.
    with torch.inference_mode(mode=False):
        return torch.zeros(MOST_KEPT, dtype=torch.uint8, pin_memory=True)
