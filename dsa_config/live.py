"""The live object: a settings class whose attributes are read when they are looked at."""

from __future__ import annotations

import types
from typing import Any, NoReturn, TypeVar, cast

from dsa_config.declare import LiveSettings, settings_of
from dsa_config.errors import AssignmentRefused, BadValue, DeclarationError, Rejected, UnknownSetting, raise_together
from dsa_config.explain import Explanation, explain
from dsa_config.layers import Given
from dsa_config.origins import Origin, caller_site
from dsa_config.overrides import Override
from dsa_config.read import Reader

SettingsClass = TypeVar("SettingsClass", bound=LiveSettings)

_live_objects: dict[type[LiveSettings], Live] = {}


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
        for reader, given in self._parsed("settings.set", values):
            reader.set(given)

    def reset(self, /, *names: str) -> None:
        """Take back what `set` gave: for these settings, or for all if none is named.

        Args:
            *names: fields, or any of their environment names.

        Raises:
            UnknownSetting: no such setting; then nothing is taken back.
        """
        for reader in [self._reader(name) for name in names] if names else self._readers.values():
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
        given: dict[str, Any] = {}
        errors: list[BadValue] = []
        for name, reader in self._readers.items():
            strongest = reader.layers()[0]
            try:
                strongest.read()
            except BadValue as error:
                errors.append(error)
            given[name] = strongest.given
        raise_together(errors)
        return self._class(**given)

    def _parsed(self, words: str, values: dict[str, object]) -> list[tuple[Reader, Given]]:
        origin = Origin(words, site=caller_site())
        parsed: list[tuple[Reader, Given]] = []
        errors: list[BadValue] = []
        for name, given in values.items():
            if name not in self._readers:
                raise UnknownSetting(name, self._readers, among=self._class.__name__)
            reader = self._readers[name]
            try:
                parsed.append((reader, Given(given, reader.setting.parse(given), origin)))
            except Rejected as error:
                bad = BadValue(
                    name=name,
                    variable=None,
                    given=given,
                    origin=str(origin),
                    reason=str(error),
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

    def _missing(self, name: str) -> NoReturn:
        if name.startswith("__"):  # what import, copy, inspect and doctest try on every module
            raise AttributeError(name)
        raise UnknownSetting(name, self._readers, among=self._class.__name__)

    def __setattr__(self, name: str, value: object) -> None:
        raise self._refusal(name)

    def __delattr__(self, name: str) -> None:
        raise self._refusal(name)

    def _refusal(self, name: str) -> Exception:
        if name in self._readers:
            return AssignmentRefused(name)
        return UnknownSetting(name, self._readers, among=self._class.__name__)

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
    if cls not in _live_objects:
        readers = {name: Reader(declared) for name, declared in settings_of(cls).items()}
        taken = sorted(name for name in readers if hasattr(Live, name))
        if taken:
            raise DeclarationError(f"{cls.__name__}.{taken[0]}: the live object has a method of that name")
        properties = {
            name: property(reader.getter(), doc=reader.setting.description) for name, reader in readers.items()
        }
        kind = type(f"Live{cls.__name__}", (Live,), properties)
        _live_objects[cls] = kind(cls, readers)
    return cast(SettingsClass, _live_objects[cls])
