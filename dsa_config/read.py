"""The hot path: a setting's value as of now, for the price of two dictionary probes.

A reader keeps one immutable record: the raw environment values that it has seen, and the value they led to. A read
compares the raw values by identity with what the environment holds now; only when they differ does anything get
parsed. Whoever changes a value by other means (`settings.set`) empties the record under the reader's lock and moves
its generation on, so that a read that was under way cannot put an outdated value back.
"""

from __future__ import annotations

import copy
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from dsa_config import layers, lifecycle
from dsa_config.declare import Setting
from dsa_config.layers import Given, Layer
from dsa_config.overrides import active, entered
from dsa_config.sources import env

_NEVER = object()  # a raw value that no environment holds


class Reader:
    """Everything that reading one setting takes.

    Attributes:
        setting: the declaration.
        process: what `settings.set()` gave, or None.
        overridable: an override of the setting has been made in this process, so that reads must ask for one.
        record: raw environment values and the value they led to; nothing else may be looked at to use it.
    """

    __slots__ = (
        "__weakref__",
        "_empty",
        "_generation",
        "_keys",
        "_last",
        "_lock",
        "overridable",
        "process",
        "record",
        "setting",
    )

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.process: Given | None = None
        self.overridable = False
        self._keys = tuple(env.key_of(variable) for variable in setting.variables)
        self._empty: tuple[Any, ...] = (*(_NEVER for _ in self._keys), None)
        self._last: tuple[dict[str, str] | None, Any] = (None, None)
        self._generation = 0
        self.start_anew()
        _all_readers.add(self)

    def start_anew(self) -> None:
        """Forget what was read. Also in a forked child, where a lock may have been held by a thread that is gone."""
        self._lock = threading.Lock()
        self._generation += 1
        self.record = self._empty

    def getter(self) -> Callable[[object], Any]:
        """The function behind the live object's property, unrolled for the usual numbers of names."""
        probe, keys, environ, scopes = env.probe, self._keys, env.ENVIRON, entered.get
        if self.setting.is_mutable:
            return lambda _live: copy.deepcopy(self.read())
        if len(keys) == 1:
            (key,) = keys

            def read_one(_live: object) -> Any:
                if self.overridable and scopes():
                    return self.read()
                raw, value = self.record
                if probe(key) is raw and os.environ is environ:
                    return value
                return self.read()

            return read_one
        if len(keys) == 2:
            key, old_key = keys

            def read_two(_live: object) -> Any:
                if self.overridable and scopes():
                    return self.read()
                raw, old_raw, value = self.record
                if probe(key) is raw and probe(old_key) is old_raw and os.environ is environ:
                    return value
                return self.read()

            return read_two
        return lambda _live: self.read()

    def read(self) -> Any:
        """The value as of now.

        Raises:
            BadValue: the winning layer's text is not a value of this setting.
        """
        if self.overridable and (overridden := active(self)) is not None:
            return overridden.value
        generation = self._generation
        unreplaced = os.environ is env.ENVIRON
        raws = [env.probe(key) for key in self._keys]
        *seen, value = self.record
        if unreplaced and all(map(_is, raws, seen)):
            return value
        texts = self._texts(raws) if unreplaced else env.texts_of(self.setting)
        layer = next(layers.strongest_first(self.setting, None, self.process, texts))
        value = self._parsed(layer)
        if layer.found is not None:
            lifecycle.warn_once(self.setting, layer.found)
        if unreplaced:
            self._publish(generation, (*raws, value))
        return value

    def layers(self) -> list[Layer]:
        """Every layer's word on this setting in this context, strongest first."""
        return list(layers.strongest_first(self.setting, active(self), self.process, env.texts_of(self.setting)))

    def set(self, given: Given | None) -> None:
        """Give the process a value, or with None take it back."""
        with self._lock:
            self.process = given
            self._generation += 1
            self.record = self._empty

    def _texts(self, raws: Sequence[Any]) -> dict[str, str]:
        # Out of the raw values of the record to be published: os.environ may already say something else.
        named = zip(self.setting.variables, raws, strict=True)
        return {name: env.text_of(raw) for name, raw in named if raw is not None}

    def _parsed(self, layer: Layer) -> Any:
        """The layer's value; text that was parsed last time is not parsed again."""
        if layer.found is None:
            return layer.read()
        texts, value = self._last
        if texts != layer.found.texts:
            value = layer.read()
            self._last = (dict(layer.found.texts), value)
        return value

    def _publish(self, generation: int, record: tuple[Any, ...]) -> None:
        with self._lock:
            if generation == self._generation:
                self.record = record


def _is(left: object, right: object) -> bool:
    return left is right


_all_readers: weakref.WeakSet[Reader] = weakref.WeakSet()


def _start_anew() -> None:
    for reader in _all_readers:
        reader.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
