"""The hot path: a setting's value as of now, for the price of two dictionary probes.

A reader keeps one immutable record: the raw environment values that it has seen, and the value they led to. A read
compares the raw values by identity with what the environment holds now; only when they differ does anything get
parsed. Whoever changes a value by other means (an override, `settings.set`) empties the record under the reader's
lock and moves its generation on, so that a read that was under way cannot put an outdated value back.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from dsa_config import layers, lifecycle
from dsa_config.declare import Setting
from dsa_config.layers import Given, Layer
from dsa_config.overrides import active, holds
from dsa_config.sources import env

_NEVER = object()  # a raw value that no environment holds


class Reader:
    """Everything that reading one setting takes.

    Attributes:
        setting: the declaration.
        process: what `settings.set()` gave, or None.
        record: raw environment values and the value they led to; nothing else may be looked at to use it.
    """

    __slots__ = (
        "__weakref__",
        "_empty",
        "_generation",
        "_held",
        "_keys",
        "_last",
        "_lock",
        "_under",
        "process",
        "record",
        "setting",
    )

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.process: Given | None = None
        self._keys = tuple(env.key_of(variable) for variable in setting.variables)
        self._empty: tuple[Any, ...] = (*(_NEVER for _ in self._keys), None)
        self.record = self._empty
        self._under = self._empty  # the record of the layers below, while some context overrides the setting
        self._last: tuple[dict[str, str] | None, Any] = (None, None)
        self._generation = 0
        self._held: set[int] = set()
        self._renew_lock()
        _all_readers.add(self)

    def _renew_lock(self) -> None:
        # Re-entrant: the garbage collector may end an override while this thread is in here.
        self._lock = threading.RLock()

    def getter(self) -> Callable[[object], Any]:
        """The function behind the live object's property, unrolled for the usual numbers of names."""
        # While some context overrides the setting, `record` is empty, so that the first comparison fails.
        probe, keys, environ, held_here = env.probe, self._keys, env.ENVIRON, holds.get
        if len(keys) == 1:
            (key,) = keys

            def read_one(_live: object) -> Any:
                raw, value = self.record
                if probe(key) is raw and os.environ is environ:
                    return value
                if self._held:
                    if (hold := held_here().get(self)) is not None:
                        return hold.value
                    raw, value = self._under
                    if probe(key) is raw and os.environ is environ:
                        return value
                return self.read()

            return read_one
        if len(keys) == 2:
            key, old_key = keys

            def read_two(_live: object) -> Any:
                raw, old_raw, value = self.record
                if probe(key) is raw and probe(old_key) is old_raw and os.environ is environ:
                    return value
                if self._held:
                    if (hold := held_here().get(self)) is not None:
                        return hold.value
                    raw, old_raw, value = self._under
                    if probe(key) is raw and probe(old_key) is old_raw and os.environ is environ:
                        return value
                return self.read()

            return read_two

        def read_many(_live: object) -> Any:
            if (hold := held_here().get(self)) is not None:
                return hold.value
            *raws, value = self._under if self._held else self.record
            if all(map(_is, map(probe, keys), raws)) and os.environ is environ:
                return value
            return self.read()

        return read_many

    def read(self) -> Any:
        """The value as of now, looked up in full.

        Raises:
            BadValue: the winning layer's text is not a value of this setting.
        """
        generation = self._generation
        overridden = active(self)
        if overridden is not None:
            return overridden.value
        unreplaced = os.environ is env.ENVIRON
        raws = [env.probe(key) for key in self._keys]
        texts = self._texts(raws) if unreplaced else env.texts_of(self.setting)
        layer = next(layers.strongest_first(self.setting, None, self.process, texts))
        value = self._parsed(layer)
        if unreplaced:
            self._publish(generation, (*raws, value))
        if layer.found is not None:
            lifecycle.warn_once(self.setting, layer.found)
        return value

    def layers(self) -> list[Layer]:
        """Every layer's word on this setting in this context, strongest first."""
        return list(layers.strongest_first(self.setting, active(self), self.process, env.texts_of(self.setting)))

    def set(self, given: Given | None) -> None:
        """Give the process a value, or with None take it back."""
        with self._lock:
            self.process = given
            self._generation += 1
            self.record = self._under = self._empty

    def hold(self, override: object) -> None:
        """Some context overrides this setting from now on: reads must ask whether it is theirs."""
        with self._lock:
            self._held.add(id(override))
            self._generation += 1
            if self.record is not self._empty:
                self._under = self.record
            self.record = self._empty

    def release(self, override: object) -> None:
        """No context can see that override any more."""
        with self._lock:
            self._held.discard(id(override))
            if not self._held:
                self._generation += 1
                self.record = self._under

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
            if generation != self._generation:
                return
            if self._held:
                self._under = record
            else:
                self.record = record


def _is(left: object, right: object) -> bool:
    return left is right


_all_readers: weakref.WeakSet[Reader] = weakref.WeakSet()


def _renew_locks() -> None:
    """In a forked child: a lock may have been held by a thread that does not exist here."""
    for reader in _all_readers:
        reader._renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
