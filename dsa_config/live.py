"""The live object: a settings class whose attributes are read when they are looked at."""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel

from dsa_config import lifecycle
from dsa_config.declare import LiveSettings
from dsa_config.errors import AssignmentRefused, BadValue, DeclarationError, Rejected, UnknownSetting, raise_together
from dsa_config.getters import Getter, Shape, getter_of
from dsa_config.layers import Given
from dsa_config.methods import CarryingMethods, LoadingMethods, TrackingMethods
from dsa_config.origins import CallSite, Origin, caller_site
from dsa_config.overrides import Override, make_override
from dsa_config.read import Reader
from dsa_config.record import Scoped
from dsa_config.sources import env
from dsa_config.state import State

if TYPE_CHECKING:
    from dsa_config.explain import Explanation

SettingsClass = TypeVar("SettingsClass", bound=LiveSettings)

_frame = sys._getframe

_live_objects: dict[type[LiveSettings], Live] = {}


class Live(LoadingMethods, TrackingMethods, CarryingMethods, types.ModuleType):
    """Base of live objects: one property per setting, put on a subclass by `live()`.

    A module, because torch.compile guards an attribute read of a module by reading it again on every call, whatever
    the read does. The same property on another kind of object is traced into, and fails. For the same reason no key
    of `__dict__` may have a setting's name.
    """

    # The generic look-up without a module's hook for missing names: Python 3.12 then inlines the property.
    __getattribute__ = object.__getattribute__

    _class: type[LiveSettings]
    _readers: dict[str, Reader]
    _kept: dict[str, dict[type, dict[Any, tuple[Reader, Any]]]]
    _state: State

    def __init__(self, state: State) -> None:
        cls = state.cls
        super().__init__(f"{cls.__module__}.{cls.__qualname__}", cls.__doc__)
        self.__dict__["_class"] = cls
        self.__dict__["_readers"] = state.readers
        self.__dict__["_kept"] = {name: reader.kept for name, reader in state.readers.items()}
        self.__dict__["_state"] = state

    def override(self, /, **values: object) -> Override:
        """Values for a scope: `with settings.override(fuse_topk=False): ...`, or as a decorator.

        Seen by this thread or asyncio task and by tasks it starts; never written to the environment.

        Raises:
            UnknownSetting: no such setting.
            BadValue, BadValues: values that their settings do not take.
        """
        if len(values) == 1:
            scope = Override()
            try:  # what has been given before is not parsed again
                for name in values:
                    given = values[name]
                    scope.one = self._kept[name][given.__class__][given]
            except KeyError:
                pass
            else:
                frame = _frame(1)
                scope.given = values
                scope.words = "settings.override"
                scope.code = frame.f_code
                scope.instruction = frame.f_lasti
                return scope
        return self._override(values, Origin("settings.override", place=caller_site()))

    def set(self, /, **values: object) -> None:
        """Values for the whole process, until `reset`. All of them or, if one is bad, none.

        Raises:
            UnknownSetting: no such setting.
            BadValue, BadValues: values that their settings do not take.
        """
        parsed = self._parsed(values, Origin("settings.set", place=caller_site()))
        self._give(parsed)

    def reset(self, /, *names: str) -> None:
        """Take back what `set` gave: for these settings, or for all if none is named.

        Args:
            *names: fields, or any of their environment names.

        Raises:
            UnknownSetting: no such setting; then nothing is taken back.
        """
        readers = [self._reader(name) for name in names] if names else self._readers.values()
        self._give(dict.fromkeys(readers))

    def explain(self, name: str) -> Explanation:
        """Why a setting has its value.

        Args:
            name: the field, or any of its environment names.

        Raises:
            UnknownSetting: no such setting.
            BadValue: the setting's value cannot be read.
        """
        from dsa_config.explain import explain

        return explain(self._reader(name))

    def snapshot(self) -> LiveSettings:
        """All values as of now, in this context, as a frozen and validated instance of the settings class.

        Raises:
            BadValue, BadValues: settings whose values cannot be read.
        """
        errors: list[BadValue] = []
        with self._state.lock:  # so that values set together are seen together
            strongest = {name: reader.layers()[0] for name, reader in self._readers.items()}
        for layer in strongest.values():
            try:
                layer.read()
            except BadValue as error:
                errors.append(error)
        raise_together(errors)
        for name, reader in self._readers.items():
            if strongest[name].source == "environment":
                lifecycle.warn_once(env.words_in(reader.setting), self._state.policy)
        return self._built({name: layer.as_constructor_takes_it() for name, layer in strongest.items()})

    def _built(self, values: dict[str, Any]) -> LiveSettings:
        """An instance with a value for every field.

        Without the constructor of pydantic-settings, which goes over the whole environment although nothing of it is
        wanted, and raises KeyError when another thread takes a variable away meanwhile.
        """
        instance = self._class.__new__(self._class)
        BaseModel.__init__(instance, **values)
        return instance

    def _override(self, values: dict[str, Any], origin: Origin) -> Override:
        given = self._parsed(values, origin)
        for reader, it in given.items():
            if not reader.overridden:
                self._state.mark_overridden(reader)
            reader.keep(it)
        parsed = {reader: it.value for reader, it in given.items()}
        copied = {reader.setting.name: it.given for reader, it in given.items()}
        assert isinstance(origin.place, CallSite)
        return make_override(parsed, copied, origin.words, origin.place.code, origin.place.instruction)

    def _carried_from(self, pid: int, values: dict[str, Any]) -> Override:
        return self._override(values, Origin(f"settings carried from process {pid}", place=caller_site()))

    def _give(self, given: Mapping[Reader, Given | None]) -> None:
        self._state.remember_values(given)
        with self._state.lock:
            for reader, it in given.items():
                reader.set(it)
        self._state.note_changes(given)

    def _parsed(self, values: dict[str, Any], origin: Origin) -> dict[Reader, Given]:
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
                errors.append(
                    BadValue.of(reader.setting, variable=None, given=given, origin=origin, reason=error.reason)
                )
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

    def _unknown(self, name: str) -> UnknownSetting:
        owner = next((field for field, it in self._readers.items() if name in it.setting.variables), None)
        hint = ""
        if owner is not None:
            hint = f"it is the environment name of {owner}"
        elif name in METHODS:
            hint = "it is a method of the live object"
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
        # help() asks here first; at import, reading the source would take too long.
        for name, reader in self._readers.items():
            prop: property = getattr(type(self), name)
            prop.__doc__ = reader.setting.description
        return sorted([*self._readers, *METHODS])

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
        state = State(cls)
        taken = sorted(name for name in state.readers if hasattr(Live, name))
        if taken:
            raise DeclarationError(f"{cls.__name__}.{taken[0]}: the live object has a method of that name")
        getters = {name: property(_first_getter(reader)) for name, reader in state.readers.items()}
        kind = type(f"Live{cls.__name__}", (Live,), getters)
        for reader in state.readers.values():
            reader.install = functools.partial(_install, kind, reader)
        return cast(SettingsClass, _live_objects.setdefault(cls, kind(state)))  # another thread may have been faster
    return cast(SettingsClass, _live_objects[cls])


def _first_getter(reader: Reader) -> Getter:
    """Until a first look has shown which getter is fast."""
    return lambda _live: copy.deepcopy(reader.read()) if reader.setting.is_mutable else reader.read()


def _install(live_class: type, reader: Reader, given: tuple[bool, ...], scoped: Scoped) -> None:
    name = reader.setting.name
    getter = getter_of(reader, Shape(given, scoped))
    setattr(live_class, name, property(getter, doc=live_class.__dict__[name].__doc__))


def _copied(given: object) -> object:
    """A copy, so that what the caller does to the original later changes nothing here."""
    try:
        return copy.deepcopy(given)
    except TypeError as error:
        raise Rejected(f"cannot be copied ({error})") from None


METHODS = frozenset(name for name in dir(Live) if not name.startswith("_") and name not in dir(types.ModuleType))
"""What a live object has beside its settings."""
