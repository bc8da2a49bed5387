"""What a format's reader tells about a file: each place where a name stands, and what the file means."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal

from dsa_config.tools.migrate.names import Names

WHOLE_FILE = ""
"""The scope of names that are seen in the whole file."""


@dataclass(frozen=True, slots=True)
class Value:
    """A literal that a name is set to: its text, and where that text stands in the file, without quotes."""

    text: str
    start: int
    end: int
    typed: bool = False
    """It stands without quotes in a format that has numbers and booleans, so that another text may be another type."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place where a name stands.

    Attributes:
        name: the name, old or new.
        start: where it stands in the file.
        action: `rename` where the tool knows what the place means, `leave` for comments, `by hand` for the rest.
        sets: the place gives the name a value.
        value: that value, where it is a literal.
        scope: names that are set in one scope reach the same reader.
        why: for `by hand`, a sentence.
    """

    name: str
    start: int
    action: Literal["rename", "leave", "by hand"] = "rename"
    sets: bool = False
    value: Value | None = None
    scope: Hashable = WHOLE_FILE
    why: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A file as its format's reader sees it: the sites, and a text that says what the file means."""

    sites: list[Site]
    meaning: str


Reader = Callable[[str, Names], Reading]
"""Reads a text; raises `Unparsable`."""
