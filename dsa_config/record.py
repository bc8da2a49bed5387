"""What a reader keeps of its last look, so that the next read need only compare; and which getter is fast for it."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal

from dsa_config.sources import env

Scoped = Literal["", "some", "all"]
"""Whether reads must ask for scopes: not at all; those of one override may answer by themselves; all must be told."""

_NEVER = object()  # a raw value that no environment holds
_MOST_SWAPS = 32  # each makes Python forget what it knew of the class; 3.13 stops learning after a thousand


class Recorded:
    """A record of raw environment values and the value they led to.

    Whoever changes a value by other means than the environment calls `forget`: that empties the record and moves the
    generation on, so that a look that was under way cannot put an outdated value back.

    Attributes:
        keys: the setting's names, as the environment has them.
        record: keys, raw environment values and the value they led to; nothing else may be looked at to use it.
        unset: the value while the environment has none of the names; absent while it is not known.
        scoped: whether scopes may say something about the setting in this process, so that reads must ask for them.
        generation: moved on by every change that is not the environment's.
        install: puts a getter in place that is fast in some state; the live object gives it.
        lock: held by whoever writes any of these.
    """

    __slots__ = (
        "__weakref__",
        "_empty",
        "_fed",
        "_given",
        "_swaps",
        "generation",
        "install",
        "keys",
        "lock",
        "record",
        "scoped",
        "unset",
    )

    def __init__(self, keys: Sequence[Any]) -> None:
        self.keys = tuple(keys)
        self.scoped: Scoped = ""
        self.install: Callable[[tuple[bool, ...], Scoped], None] = _nowhere
        self._empty: tuple[Any, ...] = (*keys, *(_NEVER for _ in keys), None)
        self._given: tuple[bool, ...] | None = None
        self._swaps = 0
        self._fed: tuple[tuple[bool, ...], Callable[[tuple[Any, ...]], None]] | None = None
        self.generation = 0
        self.start_anew()
        _all.add(self)

    def start_anew(self) -> None:
        """Forget what was read. Also in a forked child, where a lock may have been held by a thread that is gone."""
        self.lock = threading.Lock()
        self.empty()

    def empty(self) -> None:
        """Forget what was read; by whoever holds the lock."""
        self.generation += 1
        self._record(self._empty)
        with contextlib.suppress(AttributeError):
            del self.unset

    def forget(self) -> None:
        """Look at everything again at the next read."""
        with self.lock:
            self.empty()

    def publish(self, generation: int, raws: Sequence[Any], value: Any) -> None:
        """Keep a value and the raw values that led to it, unless something has changed since the generation."""
        given = tuple(raw is not None for raw in raws)
        keys = [env.held_key(key) for key in self.keys] if any(given) else self.keys
        with self.lock:
            if generation != self.generation:
                return
            self._record((*keys, *raws, value))
            if not any(given):
                self.unset = value
            self._settle(given, self.scoped)

    def feed(self, given: tuple[bool, ...], take: Callable[[tuple[Any, ...]], None]) -> None:
        """Hand records to a getter too, from now on; by whoever holds the lock.

        Args:
            given: the state that the getter is fast in: which of the names the environment has.
            take: keeps a record where the getter finds it.
        """
        self._fed = given, take
        self._record(self.record)

    def _record(self, record: tuple[Any, ...]) -> None:
        self.record = record
        if self._fed is not None:
            given, take = self._fed
            # A getter compares only the names that are set in its state. With the record of another one it would
            # return a value that a name led to which is gone.
            raws = record[len(self.keys) : -1]
            take(record if tuple(raw is not None for raw in raws) == given else self._empty)

    def set_scoped(self, scoped: Scoped) -> None:
        """Whether reads must ask for scopes from now on."""
        with self.lock:
            if scoped != self.scoped:
                self.scoped = scoped
                # Read in scopes alone, so far: any guess at what the environment has is right, and that is fast.
                self.install((False,) * len(self.keys) if self._given is None else self._given, scoped)

    def _settle(self, given: tuple[bool, ...], scoped: Scoped) -> None:
        """Have the getter put in place that is fast now. If that goes on and on, it stays as it is, right if slow."""
        if given != self._given and self._swaps < _MOST_SWAPS:
            self._swaps += 1
            self._given = given
            self.install(given, scoped)


def _nowhere(given: tuple[bool, ...], scoped: Scoped) -> None:
    """For a reader without a live object."""


_all: weakref.WeakSet[Recorded] = weakref.WeakSet()


def _start_anew() -> None:
    for recorded in _all:
        recorded.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
