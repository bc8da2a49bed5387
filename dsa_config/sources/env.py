"""The process environment: the fast way to look at it, and what it says about a setting."""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any, cast

from dsa_config.names import Word, words_of
from dsa_config.origins import Origin

if TYPE_CHECKING:
    from dsa_config.declared import Setting

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

HELD: Container[Any]
"""What holds the keys of the variables that are set."""

if isinstance(_DATA, dict):
    HELD, probe, key_of, text_of = _DATA, _DATA.get, ENVIRON.encodekey, ENVIRON.decodevalue
else:  # another Python than CPython, or os.environ was replaced before our import
    HELD, probe, key_of, text_of = ENVIRON, ENVIRON.get, str, str


def held_key(key: Any) -> Any:
    """The very key under which a variable is held, if it is: a look-up by it need not compare any bytes."""
    try:
        return next((held for held in tuple(cast(Any, HELD)) if held == key), key)
    except RuntimeError:  # another thread writes meanwhile
        return key


def texts_of(setting: Setting) -> dict[str, str]:
    """A setting's names that `os.environ` has, strongest first, each with its text."""
    environ = os.environ
    return {name: text for name in setting.variables if (text := environ.get(name)) is not None}


def words_in(setting: Setting, texts: dict[str, str] | None = None) -> list[Word]:
    """What the environment says about a setting, strongest first.

    Args:
        setting: which one.
        texts: the names that are set and their texts; looked up in `os.environ` if not given.
    """
    found = texts_of(setting) if texts is None else texts
    return words_of(setting, found, _origin) if found else []


def _origin(variable: str) -> Origin:
    return Origin(f"environment variable {variable}", variable=variable)
