"""The process environment: which of a setting's names is used, and whether two of them disagree."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsa_config.errors import BadValue, Rejected
from dsa_config.origins import Origin

if TYPE_CHECKING:
    from dsa_config.declare import Renamed, Setting

ENVIRON = os.environ
"""The object that fast reads probe. A replaced `os.environ` is noticed, because it is not this one."""

_DATA = getattr(ENVIRON, "_data", None)

probe: Callable[[Any], Any]
"""The raw value of a key of `ENVIRON`, or None. On CPython this is `dict.get` of the dict behind `os.environ`, a
fifth of the cost of `os.environ.get`, and it sees all that `os.environ` sees."""

key_of: Callable[[str], Any]
"""The key under which `probe` finds a variable."""

text_of: Callable[[Any], str]
"""The text of a raw value that `probe` found."""

if isinstance(_DATA, dict):
    probe, key_of, text_of = _DATA.get, ENVIRON.encodekey, ENVIRON.decodevalue
else:  # another Python than CPython, or os.environ was replaced before our import
    probe, key_of, text_of = ENVIRON.get, str, str


@dataclass(frozen=True, slots=True)
class Found:
    """What the environment says about one setting."""

    text: str
    variable: str
    renamed: Renamed | None
    """Set when `variable` is a deprecated name."""
    texts: Mapping[str, str]
    """Every name of the setting that is set, with its text, strongest first."""

    @property
    def conflict(self) -> dict[str, str] | None:
        """The names and texts, if two names are set to different text."""
        different = len({text.strip() for text in self.texts.values()}) > 1
        return dict(self.texts) if different else None

    @property
    def origin(self) -> Origin:
        """The variable, in words."""
        return Origin(f"environment variable {self.variable}", variable=self.variable)


def find(setting: Setting, texts: Mapping[str, str] | None = None) -> Found | None:
    """The strongest of a setting's names that is set, or None.

    Args:
        setting: which one.
        texts: the names that are set and their texts, strongest first; read from `os.environ` if not given.
    """
    if texts is None:
        texts = texts_of(setting)
    if not texts:
        return None
    variable, text = next(iter(texts.items()))
    renamed = next((entry for entry in setting.deprecated if entry.name == variable), None)
    return Found(text, variable, renamed, texts)


def texts_of(setting: Setting) -> dict[str, str]:
    """A setting's names that `os.environ` has, strongest first, each with its text."""
    environ = os.environ
    return {name: text for name in setting.variables if (text := environ.get(name)) is not None}


def parse(setting: Setting, found: Found) -> Any:
    """The value of what was found.

    Raises:
        BadValue: the field does not take the text.
    """
    try:
        return setting.parse(found.text)
    except Rejected as error:
        raise BadValue(
            name=setting.name,
            variable=found.variable,
            given=found.text,
            origin=str(found.origin),
            reason=error.reason,
            allowed=setting.allowed,
        ) from None
