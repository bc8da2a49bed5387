"""A piece of work that can be shared out in several ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SharedWork:
    """One piece of work.

    Attributes:
        name: its sizes, in words.
        inputs: makes what one GPU needs for all of it, by a seed: the same on all ranks.
        one: all of it on one GPU.
        ways: by name, how ranks share it out.
        same: by way, what is wrong with what it gives, beside what one GPU gives for the same input; None if nothing.
        captured: timed as replays of a graph.
        bars: by way, how many times as fast as one GPU it must be on two.
    """

    name: str
    inputs: Callable[[int], Any]
    one: Callable[[Any], Any]
    ways: Mapping[str, Callable[[Any], Any]]
    same: Callable[[str, Any, Any, Any], str | None]
    captured: bool = False
    bars: Mapping[str, float] = field(default_factory=dict)


def all_equal(_: str, _input: Any, got: Any, wanted: Any) -> str | None:
    """Whether a way gives the same numbers as one GPU."""
    if got.equal(wanted):
        return None
    return f"{int((got != wanted).sum())} of {wanted.numel()} differ from one GPU's"
