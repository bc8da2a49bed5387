"""The shape of a backend: what an `on_<name>.py` file defines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dsa_exec.core.hardware import Capabilities
from dsa_exec.memory.footprint import NOTHING, Footprint


def refuses_nothing(_call: Any, _hw: Capabilities) -> str | None:
    """For a backend that takes every call."""
    return None


def takes_nothing(_call: Any, _hw: Capabilities) -> Footprint:
    """For a backend that allocates nothing beside its result."""
    return NOTHING


LAST = 100
"""The rank of the specification: it takes every call, and is the last that `auto` would want."""


@dataclass(frozen=True, slots=True)
class Backend:
    """One implementation of an op. Each `on_<name>.py` has one, as `BACKEND`.

    The file is imported to list backends, also where the backend cannot run: it imports no vendor library at its top,
    but asks `capabilities(device).library(...)` for it in `run`, and `refuses` says that it is missing.

    `refuses`, `declines`, `adapts` and `footprint` are asked once for all calls of the same signature (`signature.py`):
    they may look at everything about the call but the numbers in its tensors, at addresses modulo 16, at whether
    gradients are on, and at the settings that `reads` names.

    Attributes:
        name: the file's name without `on_`.
        run: takes the op's Call, gives the op's result. Reads no settings but `kernel_launch` (`core/launch.py`).
        refuses: takes the Call and the device's capabilities; None, or why not, in one sentence with the value in it.
        declines: the same, asked by `auto` alone and first: None, or why another backend is the better choice for a
            call that this one could run. Whoever names the backend gets it.
        rank: `auto` tries backends in this order, lowest first; the specification, torch, comes last.
        adapts: None, or what the backend changes about the call to be able to run it: "16 heads padded to 64".
        reads: settings that `refuses`, `declines`, `adapts` or `footprint` read.
        footprint: what a call allocates at most, as a function of its rows: the logits budget counts it. Of the ops
            whose rows `index_select` takes in chunks.
    """

    name: str
    run: Callable[[Any], Any]
    refuses: Callable[[Any, Capabilities], str | None] = refuses_nothing
    declines: Callable[[Any, Capabilities], str | None] = refuses_nothing
    rank: int = 50
    adapts: Callable[[Any, Capabilities], str | None] = refuses_nothing
    reads: tuple[str, ...] = ()
    footprint: Callable[[Any, Capabilities], Footprint] = takes_nothing
