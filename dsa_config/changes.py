"""What changed, from what to what, and why: the last changes, and those who want to hear of each."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from dsa_config.origins import Origin

MOST_KEPT = 1024

Listener = Callable[[str, Any, Any, Origin], None]


class Change(NamedTuple):
    """One change of a setting for the whole process. Of a secret, the values are masked.

    Attributes:
        name: the setting.
        old, new: its values before and after.
        origin: what gave the new value.
        seen_at: when it was noticed, in seconds since the epoch.
    """

    name: str
    old: Any
    new: Any
    origin: Origin
    seen_at: float

    def __str__(self) -> str:
        return f"{self.name}: {self.old!r} -> {self.new!r}, from {self.origin}"


class Changes:
    """A ring of the last changes, and the listeners."""

    def __init__(self) -> None:
        self._ring: deque[Change] = deque(maxlen=MOST_KEPT)
        self._listeners: tuple[Listener, ...] = ()

    def add(self, name: str, old: Any, new: Any, origin: Origin) -> None:
        """Keep a change and tell the listeners. A listener that fails is reported, and stops nobody."""
        self._ring.append(Change(name, old, new, origin, time.time()))
        for listener in self._listeners:
            try:
                listener(name, old, new, origin)
            except Exception as error:
                warnings.warn(
                    f"{listener!r} failed when it was told of {name}: {type(error).__name__}: {error}",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener of every change from now on; call what is returned to stop."""
        if not callable(listener):
            raise TypeError(f"on_change({listener!r}): wanted a function of name, old, new and origin")
        self._listeners = (*self._listeners, listener)

        def stop() -> None:
            self._listeners = tuple(it for it in self._listeners if it is not listener)

        return stop

    def last(self, name: str | None = None) -> list[Change]:
        """The last changes, oldest first: of one setting, or of all."""
        return [change for change in tuple(self._ring) if name is None or change.name == name]
