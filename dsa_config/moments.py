"""Moments after which a change has no effect: a cache was allocated, a graph captured, the process started.

A change that comes after its setting's moment is reported, with the line at which the moment passed.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from dsa_config.origins import CallSite, Origin, outside_caller

if TYPE_CHECKING:
    from dsa_config.declared import Effect, Setting

NEXT = {
    "call": "the next call",
    "capture": "the next CUDA-graph capture or compilation",
    "allocate": "the next allocation of a cache",
    "process": "the next start of the process",
    "call and allocate": "the next call, and for how a cache is laid out at its next allocation",
}
"""When a change of a setting takes effect, by its `effect`."""

_MOMENT = {"call and allocate": "allocate"}
"""The moment that an effect waits for, where it has another name."""


class TooLate(UserWarning):
    """A setting changed after the moment up to which a change has an effect."""


class Moments:
    """Which moments have passed, and which changes came too late."""

    def __init__(self) -> None:
        self._passed: dict[str, str] = {}
        self._late: dict[str, tuple[str, str]] = {}

    def passed(self, effect: Effect, what: str, site: CallSite) -> None:
        """Note that a moment has passed. Settings that wait for the next such moment are up to date again."""
        self._passed[effect] = f"{what} at {site}"
        self._late = {name: it for name, it in self._late.items() if it[0] != effect}

    def check(self, setting: Setting, old: Any, new: Any, origin: Origin) -> None:
        """Report a change that comes too late."""
        moment = _MOMENT.get(setting.effect, setting.effect)
        passed = "the process started" if moment == "process" else self._passed.get(moment)
        if passed is None:
            return
        told = f"{setting.name} changed from {old!r} to {new!r} (from {origin}), too late: {passed}; "
        told += f"it takes effect at {NEXT[setting.effect]}"
        self._late[setting.name] = (moment, told)
        _, level = outside_caller()
        warnings.warn(told, TooLate, stacklevel=level)

    def copy(self) -> Moments:
        """The same, to be put back: a test's caches and graphs end with it."""
        copied = Moments()
        copied._passed, copied._late = dict(self._passed), dict(self._late)
        return copied

    def forget(self) -> None:
        """No moment has passed."""
        self._passed.clear()
        self._late.clear()

    def late(self, name: str) -> list[str]:
        """What there is to say of a setting whose last change came too late."""
        return [self._late[name][1]] if name in self._late else []
