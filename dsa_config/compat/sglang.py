"""SGLang's `envs`: the settings of DSA under their environment names, for code that is written for `envs.X.get()`."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, NoReturn, cast

from dsa_config import settings
from dsa_config.carry import text_for_child
from dsa_config.errors import SettingError, UnknownSetting
from dsa_config.origins import Origin, caller_site
from dsa_config.overrides import active

if TYPE_CHECKING:
    from dsa_config.live import Live
    from dsa_config.overrides import Override
    from dsa_config.read import Reader


class NotAValue(SettingError, RuntimeError):
    """An attribute of `envs` was used as if it were the value that its `get` gives."""


class EnvAssignmentRefused(SettingError, AttributeError):
    """An attribute of `envs` was assigned or deleted, which would cut it off from the settings."""


class EnvField:
    """One environment name: read, written, removed and overridden by methods, and never taken for its value.

    Attributes:
        name: the canonical environment name.
    """

    __slots__ = ("_live", "_reader", "name")

    def __init__(self, live: Live, reader: Reader) -> None:
        self._live = live
        self._reader = reader
        self.name = reader.setting.variable

    @property
    def default(self) -> Any:
        """The value when nothing gives one."""
        return copy.deepcopy(self._reader.setting.default)

    def get(self) -> Any:
        """The value as of now, in this context.

        Raises:
            BadValue: what gives it is no value of the setting.
        """
        return getattr(self._live, self._reader.setting.name)

    def set(self, value: Any) -> None:
        """Write the variable, for this process and its children; None is kept in this process alone.

        Raises:
            BadValue: the setting does not take the value; nothing has changed.
            SettingError: the value has no text.
        """
        name = self._reader.setting.name
        parsed = self._live._parsed({name: value}, self._origin("set"))
        if value is None:
            self._live._give(parsed)
            os.environ.pop(self.name, None)
            return
        os.environ[self.name] = text_for_child(self._reader.setting, parsed[self._reader])
        self._live._give({self._reader: None})  # or it would hide what has just been written

    def clear(self) -> None:
        """Remove the variable, and take back what `set(None)` or `settings.set` has given."""
        os.environ.pop(self.name, None)
        self._live._give({self._reader: None})

    def is_set(self) -> bool:
        """The canonical name is in the environment, or a value is set or overridden through us."""
        return self.name in os.environ or self._reader.process is not None or active(self._reader) is not None

    def override(self, value: Any) -> Override:
        """The value for a scope: `with envs.X.override(value): ...`, or as a decorator.

        Raises:
            BadValue: the setting does not take the value.
        """
        return self._live._override({self._reader.setting.name: value}, self._origin("override"))

    def _origin(self, method: str) -> Origin:
        return Origin(f"envs.{self.name}.{method}", place=caller_site())

    def __bool__(self) -> bool:
        raise self._not_a_value()

    def __len__(self) -> int:
        raise self._not_a_value()

    def _not_a_value(self) -> NotAValue:
        return NotAValue(f"envs.{self.name} is no value and always there: write envs.{self.name}.get()")

    def __repr__(self) -> str:
        return f"<envs.{self.name}, settings.{self._reader.setting.name}>"


class Envs:
    """One attribute for each environment name of a live object, deprecated names included.

    What differs from SGLang's own `envs`:

    - A text that is no value raises BadValue, in `get` for the environment and in `set` and `override` for what they
      are given; it never becomes the default. Ranges and choices are enforced, and booleans have one vocabulary.
    - `override` ends on every path, also when the body raises. It holds for this thread or asyncio task and what
      carries its context, and is never in `os.environ`: a child gets it from `settings.child_env()`.
    - Within `override`, the overridden value is read whatever `set` and `clear` do meanwhile; they show when it ends.
    - `set(None)` is for settings that take none, and any other setting refuses it. It removes the variable and keeps
      None in this process; the text "None" is never written. It survives what others do to the variable, until `set`
      or `clear`. A child gets it from `settings.child_env()`.
    - `set` writes what is read back as the same value, and refuses a value that has no such text.
    - A deprecated name is read and never copied to the canonical one: it can be changed and removed, does not count for
      `is_set`, and its use is reported once. As an attribute it is the field of the canonical name.
    - Values may also come from `settings.set`, files and feature flags; the environment is stronger than files and
      flags. `set` and `clear` take back what `settings.set` has given.
    - `is_set` is also true for a value that is set or overridden in the program without being in `os.environ`.
    - Only the settings that are declared here are there. An unknown name is an error with the nearest known ones, and
      assigning or deleting an attribute is refused.
    """

    _live: Live
    _fields: dict[str, EnvField]

    def __init__(self, live: object) -> None:
        self.__dict__["_live"] = live
        fields = [EnvField(cast("Live", live), reader) for reader in cast("Live", live)._readers.values()]
        names = {name: field for field in fields for name in field._reader.setting.variables[1:]}
        self.__dict__["_fields"] = names | {field.name: field for field in fields}

    def __getattr__(self, name: str) -> EnvField:
        try:
            return self.__dict__["_fields"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise self._unknown(name) from None

    def __setattr__(self, name: str, value: object) -> None:
        self._refuse(name)

    def __delattr__(self, name: str) -> None:
        self._refuse(name)

    def __dir__(self) -> list[str]:
        return sorted(self._fields)

    def __repr__(self) -> str:
        return f"<environment names of {self._live!r}>"

    def _refuse(self, name: str) -> NoReturn:
        if name not in self._fields:
            raise self._unknown(name)
        raise EnvAssignmentRefused(
            f"envs.{name} cannot be assigned or deleted: use envs.{name}.set(...) and .clear() for the process and its "
            f"children, or `with envs.{name}.override(...):` for a scope"
        )

    def _unknown(self, name: str) -> AttributeError:
        if name.startswith("__"):  # what copy, pickle and inspect try on every object
            return AttributeError(name)
        reader = self._live._readers.get(name)
        hint = f"write envs.{reader.setting.variable}" if reader is not None else ""
        return UnknownSetting(name, self._fields, among="envs", hint=hint)


envs = Envs(settings)
"""The environment names of DSA's settings."""
