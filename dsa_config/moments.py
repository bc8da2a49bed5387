"""Moments after which a change has no effect: a cache was allocated, a graph captured, the process started.

A change that comes after its setting's moment is reported, with the line at which the moment passed. A moment is over
when nothing is left of what was made in it: the next cache takes the new value.
"""

from __future__ import annotations

import gc
import itertools
import warnings
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
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

LEAST_KEPT = 64
"""So many moments are kept before it is looked which of them are over."""


class TooLate(UserWarning):
    """A setting changed after the moment up to which a change has an effect."""


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """A moment that has passed.

    Attributes:
        effect: whose moment it is.
        told: what happened, and where.
        made: what was made in it; None: it is never over.
        decided_by: the settings that decided about it; None: all that wait for such a moment.
    """

    effect: str
    told: str
    made: tuple[weakref.ref[object], ...] | None = None
    decided_by: frozenset[str] | None = None

    def is_of(self, effect: str, name: str) -> bool:
        return self.effect == effect and (self.decided_by is None or name in self.decided_by)

    @property
    def is_over(self) -> bool:
        return self.made is not None and all(it() is None for it in self.made)


_START = _Moment("process", "the process started")


@dataclass(frozen=True, slots=True)
class _LateChange:
    """A change, and the moments that it came too late for, oldest first."""

    effect: str
    change: str
    at: str
    moments: tuple[_Moment, ...]

    def told(self) -> str | None:
        """What there is to say of it; nothing once all of the moments are over."""
        lasting = next((it for it in reversed(self.moments) if not it.is_over), None)
        return None if lasting is None else f"{self.change}, too late: {lasting.told}; it takes effect at {self.at}"


class Moments:
    """Which moments have passed, and which changes came too late."""

    def __init__(self) -> None:
        # One for each thing that was made; where nothing was named, the last one for the same settings.
        self._passed: dict[object, _Moment] = {}
        self._late: dict[str, _LateChange] = {}
        self._numbers = itertools.count()
        self._room = LEAST_KEPT

    def passed(
        self,
        effect: Effect,
        what: str,
        site: CallSite,
        made: Iterable[object] = (),
        decided_by: frozenset[str] | None = None,
    ) -> None:
        """Note that a moment has passed. The settings that decided about it are up to date again.

        Args:
            effect: whose moment it is.
            what: what happened, in words.
            site: where.
            made: what was made; with the last of it, the moment is over. Nothing: it lasts.
            decided_by: the settings that decided about it; None: all that wait for such a moment.
        """
        kept = tuple(map(weakref.ref, made)) or None
        moment = _Moment(effect, f"{what} at {site}", kept, decided_by)
        key = (effect, decided_by) if kept is None else next(self._numbers)
        self._passed.pop(key, None)  # the newest is the last
        self._passed[key] = moment
        if len(self._passed) > self._room:
            self._drop_what_is_over()
        self._late = {name: it for name, it in self._late.items() if not moment.is_of(it.effect, name)}

    def check(self, setting: Setting, old: Any, new: Any, origin: Origin) -> None:
        """Report a change that comes too late."""
        effect = _MOMENT.get(setting.effect, setting.effect)
        passed = (_START,) if effect == "process" else self._lasting(effect, setting.name)
        if passed and passed[-1].made is not None:
            gc.collect()  # of what is gone for its user, cycles may be left
            passed = self._lasting(effect, setting.name)
        change = f"{setting.name} changed from {old!r} to {new!r} (from {origin})"
        late = _LateChange(effect, change, NEXT[setting.effect], passed)
        told = late.told()
        if told is None:
            return
        self._late[setting.name] = late
        _, level = outside_caller()
        warnings.warn(told, TooLate, stacklevel=level)

    def copy(self) -> Moments:
        """The same, to be put back: a test's caches and graphs end with it."""
        copied = Moments()
        copied._passed, copied._late, copied._numbers = dict(self._passed), dict(self._late), self._numbers
        return copied

    def forget(self) -> None:
        """No moment has passed."""
        self._passed.clear()
        self._late.clear()

    def late(self, name: str) -> list[str]:
        """What there is to say of a setting whose last change came too late."""
        told = self._late[name].told() if name in self._late else None
        return [] if told is None else [told]

    def _lasting(self, effect: str, name: str) -> tuple[_Moment, ...]:
        return tuple(it for it in tuple(self._passed.values()) if it.is_of(effect, name) and not it.is_over)

    def _drop_what_is_over(self) -> None:
        for key, moment in tuple(self._passed.items()):
            if moment.is_over:
                self._passed.pop(key, None)  # another thread may have done it
        self._room = max(LEAST_KEPT, 2 * len(self._passed))
