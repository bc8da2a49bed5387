"""The live object: a settings class whose attributes are read when they are looked at."""

from __future__ import annotations

import copy
import os
import threading
import types
from typing import Any, TypeVar, cast

from dsa_config import lifecycle
from dsa_config.declare import LiveSettings, settings_of
from dsa_config.errors import AssignmentRefused, BadValue, DeclarationError, Rejected, UnknownSetting, raise_together
from dsa_config.explain import Explanation, explain
from dsa_config.layers import Given
from dsa_config.origins import Origin, caller_site
from dsa_config.overrides import Override
from dsa_config.read import Reader

SettingsClass = TypeVar("SettingsClass", bound=LiveSettings)

_live_objects: dict[type[LiveSettings], Live] = {}
_process_lock = threading.Lock()


class Live(types.ModuleType):
    """Base of live objects: one property per setting, put on a subclass by `live()`.

    A module, because torch.compile guards an attribute read of a module by reading it again on every call, whatever
    the read does. The same property on another kind of object is traced into, and fails. For the same reason no key
    of `__dict__` may have a setting's name.
    """

    _class: type[LiveSettings]
    _readers: dict[str, Reader]

    def __init__(self, cls: type[LiveSettings], readers: dict[str, Reader]) -> None:
        super().__init__(f"{cls.__module__}.{cls.__qualname__}", cls.__doc__)
        self.__dict__["_class"] = cls
        self.__dict__["_readers"] = readers
        # A module's own hook for missing names. The same as a method of the class would double the cost of every read.
        self.__dict__["__getattr__"] = self._missing

    def override(self, /, **values: object) -> Override:
        """Values for a scope: `with settings.override(fuse_topk=False): ...`, or as a decorator.

        Seen by this thread or asyncio task and by tasks it starts; never written to the environment.

        Raises:
            UnknownSetting: no such setting.
            BadValue, BadValues: values that their settings do not take.
        """
        return Override(self._parsed("settings.override", values))

    def set(self, /, **values: object) -> None:
        """Values for the whole process, until `reset`. All of them or, if one is bad, none.

        Raises:
            UnknownSetting: no such setting.
            BadValue, BadValues: values that their settings do not take.
        """
        parsed = self._parsed("settings.set", values)
        with _process_lock:
            for reader, given in parsed.items():
                reader.set(given)

    def reset(self, /, *names: str) -> None:
        """Take back what `set` gave: for these settings, or for all if none is named.

        Args:
            *names: fields, or any of their environment names.

        Raises:
            UnknownSetting: no such setting; then nothing is taken back.
        """
        readers = [self._reader(name) for name in names] if names else self._readers.values()
        with _process_lock:
            for reader in readers:
                reader.set(None)

    def explain(self, name: str) -> Explanation:
        """Why a setting has its value.

        Args:
            name: the field, or any of its environment names.

        Raises:
            UnknownSetting: no such setting.
            BadValue: the setting's value cannot be read.
        """
        return explain(self._reader(name))

    def snapshot(self) -> LiveSettings:
        """All values as of now, in this context, as a frozen and validated instance of the settings class.

        Raises:
            BadValue, BadValues: settings whose values cannot be read.
        """
        errors: list[BadValue] = []
        with _process_lock:  # so that values set together are seen together
            strongest = {name: reader.layers()[0] for name, reader in self._readers.items()}
        for layer in strongest.values():
            try:
                layer.read()
            except BadValue as error:
                errors.append(error)
        raise_together(errors)
        for layer in strongest.values():
            if layer.found is not None:
                lifecycle.warn_once(layer.setting, layer.found)
        return self._class(**{name: layer.given for name, layer in strongest.items()})

    def _parsed(self, words: str, values: dict[str, object]) -> dict[Reader, Given]:
        origin = Origin(words, site=caller_site())
        parsed: dict[Reader, Given] = {}
        errors: list[BadValue] = []
        for name, given in values.items():
            if name not in self._readers:
                raise self._unknown(name)
            reader = self._readers[name]
            try:
                kept = _copied(given) if reader.setting.is_mutable else given
                parsed[reader] = Given(kept, reader.setting.parse(kept), origin)
            except Rejected as error:
                bad = BadValue(
                    name=name,
                    variable=None,
                    given=given,
                    origin=str(origin),
                    reason=error.reason,
                    allowed=reader.setting.allowed,
                )
                errors.append(bad)
        raise_together(errors)
        return parsed

    def _reader(self, name: str) -> Reader:
        if name in self._readers:
            return self._readers[name]
        for reader in self._readers.values():
            if name in reader.setting.variables:
                return reader
        variables = [variable for reader in self._readers.values() for variable in reader.setting.variables]
        raise UnknownSetting(name, [*self._readers, *variables], among=self._class.__name__)

    def _missing(self, name: str) -> Any:
        if name in self._readers:
            # The property raised an AttributeError of somebody else's: a validator's, say, or of a broken os.environ.
            try:
                return self._readers[name].read()
            except AttributeError as error:
                raise RuntimeError(f"{name} cannot be read: {error}") from error
        if name.startswith("__"):  # what import, copy, inspect and doctest try on every module
            raise AttributeError(name)
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownSetting:
        owner = next((field for field, it in self._readers.items() if name in it.setting.variables), None)
        hint = ""
        if owner is not None:
            hint = f"it is the environment name of {owner}"
        elif name in dir(self):
            hint = "it is a method of the live object"
        elif hasattr(self._class, name):
            hint = f"the class has it: settings.snapshot().{name}"
        return UnknownSetting(name, self._readers, among=self._class.__name__, hint=hint)

    def __setattr__(self, name: str, value: object) -> None:
        raise self._refusal(name)

    def __delattr__(self, name: str) -> None:
        raise self._refusal(name)

    def _refusal(self, name: str) -> Exception:
        if name in self._readers:
            return AssignmentRefused(name)
        return self._unknown(name)

    def __dir__(self) -> list[str]:
        return sorted([*self._readers, "override", "set", "reset", "explain", "snapshot"])

    def __repr__(self) -> str:
        return f"<live {self._class.__qualname__}, {len(self._readers)} settings>"

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy, deep copy or unpickled object is the process's live object: there is one per class.
        return live, (self._class,)


def live(cls: type[SettingsClass]) -> SettingsClass:
    """The live object of a settings class, typed as the class. There is one per class and process.

    Raises:
        DeclarationError: the class cannot be read live.
    """
    if not (isinstance(cls, type) and issubclass(cls, LiveSettings)):
        raise DeclarationError(f"live({cls!r}): wanted a class that is derived from LiveSettings")
    if cls not in _live_objects:
        readers = {name: Reader(declared) for name, declared in settings_of(cls).items()}
        taken = sorted(name for name in readers if hasattr(Live, name))
        if taken:
            raise DeclarationError(f"{cls.__name__}.{taken[0]}: the live object has a method of that name")
        getters = {name: property(reader.getter(), doc=reader.setting.description) for name, reader in readers.items()}
        made = type(f"Live{cls.__name__}", (Live,), getters)(cls, readers)
        return cast(SettingsClass, _live_objects.setdefault(cls, made))  # another thread may have been faster
    return cast(SettingsClass, _live_objects[cls])


def _copied(given: object) -> object:
    """A copy, so that what the caller does to the original later changes nothing here."""
    try:
        return copy.deepcopy(given)
    except TypeError as error:
        raise Rejected(f"cannot be copied ({error})") from None


def _renew_lock() -> None:
    """In a forked child: the lock may have been held by a thread that is gone."""
    global _process_lock
    _process_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
