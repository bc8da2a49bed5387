"""Sealed reads: a plain object whose attributes the writers keep current, for code that cannot afford to look.

A live read asks the environment every time. The sealed object is told instead: `os.environ` is given a class that
reports writes, and `set`, `reset` and `load` report theirs. A setting that scopes may say something about, because it
was overridden, is flagged or is being recorded, is read live by the sealed object too.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Any

from dsa_config.errors import AssignmentRefused
from dsa_config.getters import Shape, getter_of

if TYPE_CHECKING:
    from dsa_config.read import Reader
    from dsa_config.state import State


class Sealed:
    """Keeps one plain object current.

    Attributes:
        object: what to read from: one plain attribute for each setting.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.RLock()
        names = tuple(state.readers)
        body = {"__slots__": names, "__doc__": state.cls.__doc__, "__setattr__": _refuse, "__delattr__": _refuse}
        self._class: type = type(f"Sealed{state.cls.__name__}", (), body)
        self._slots = {name: self._class.__dict__[name] for name in names}
        self.object: Any = self._class()
        _report_environment_writes()
        _all_sealed.add(self)
        self.refresh()

    def renew_lock(self) -> None:
        """In a forked child: the lock may have been held by a thread that is gone."""
        self._lock = threading.RLock()

    def refresh(self) -> None:
        """Bring every attribute up to date."""
        with self._lock:
            for name, reader in self._state.readers.items():
                self._refresh(name, reader)

    def refresh_variable(self, variable: str) -> None:
        """Bring the settings up to date that have this environment name."""
        with self._lock:
            for name, reader in self._state.readers.items():
                if variable in reader.setting.variables:
                    self._refresh(name, reader)

    def _refresh(self, name: str, reader: Reader) -> None:
        layer = None if reader.scoped or reader.setting.is_mutable else reader.strongest()
        slot = self._slots[name]
        if layer is not None:
            slot.__set__(self.object, layer.value)
            if self._class.__dict__[name] is not slot:
                setattr(self._class, name, slot)
        elif self._class.__dict__[name] is slot:  # read live, which raises what there is to raise
            setattr(self._class, name, property(getter_of(reader, Shape((False,) * len(reader.keys), scoped="all"))))


def _refuse(_sealed: object, name: str, _value: object = None) -> None:
    raise AssignmentRefused(name)


_all_sealed: weakref.WeakSet[Sealed] = weakref.WeakSet()


def _report_environment_writes() -> None:
    """Give `os.environ` a class that tells sealed objects of every write that goes through it."""
    plain = type(os.environ)
    if getattr(plain, "reports_to_sealed", False):
        return

    class Reporting(plain):  # type: ignore[valid-type,misc]
        """`os.environ`, with sealed settings kept current."""

        reports_to_sealed = True

        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            _written(key)

        def __delitem__(self, key: Any) -> None:
            super().__delitem__(key)
            _written(key)

    os.environ.__class__ = Reporting
    os.environb.__class__ = Reporting


def _written(key: Any) -> None:
    variable = os.fsdecode(key)
    for sealed in tuple(_all_sealed):
        sealed.refresh_variable(variable)


def _renew_locks() -> None:
    for sealed in _all_sealed:
        sealed.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
