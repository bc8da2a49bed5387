"""Double-quoted strings of JSON, TOML and YAML with their escapes undone."""

from __future__ import annotations

import re

from dsa_config.tools.migrate.mapped import NOWHERE, Mapped

_ESCAPE = re.compile(
    r"\\(?:u(?P<four>[0-9a-fA-F]{4})|U(?P<eight>[0-9a-fA-F]{8})|x(?P<two>[0-9a-fA-F]{2})"
    r"|(?P<line>[ \t]*\r?\n\s*)|(?P<one>.))",
    re.S,
)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0", "a": "\a", "v": "\v", "e": "\x1b"}


def unescaped(source: str, start: int, end: int) -> Mapped:
    """The inner part of a double-quoted string of the file, escapes undone."""
    characters: list[str] = []
    places: list[int] = []
    at = start
    while at < end:
        match = _ESCAPE.match(source, at, end)
        text = source[at] if match is None else _meant(match)
        characters.append(text)
        places.extend([at if match is None else NOWHERE] * len(text))
        at = at + 1 if match is None else match.end()
    return Mapped("".join(characters), places)


def doubled(source: str, start: int, end: int) -> Mapped:
    """The inner part of a single-quoted YAML string, where two quotes mean one."""
    characters: list[str] = []
    places: list[int] = []
    at = start
    while at < end:
        is_pair = source.startswith("''", at)
        characters.append(source[at])
        places.append(NOWHERE if is_pair else at)
        at += 1 + is_pair
    return Mapped("".join(characters), places)


def _meant(match: re.Match[str]) -> str:
    digits = match["four"] or match["eight"] or match["two"]
    if digits is not None:
        number = int(digits, 16)
        return chr(number) if number <= 0x10FFFF else ""
    if match["line"] is not None:
        return ""
    return _LETTERS.get(match["one"], match["one"])
