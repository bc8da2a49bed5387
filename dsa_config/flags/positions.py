"""Where the parts of a JSON document are: the line of every key and item, and keys that an object has twice."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

Place = tuple[str | int, ...]
"""The keys and list positions that lead to a part of the document."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.S)


@dataclass(slots=True)
class Positions:
    """What `positions_in` finds.

    Attributes:
        lines: the line, from 1, on which each key or item stands.
        repeated: keys that stand in one object more than once, with the lines of all but the first.
    """

    lines: dict[Place, int] = field(default_factory=dict)
    repeated: list[tuple[Place, int]] = field(default_factory=list)

    def line(self, place: Place) -> int | None:
        """The line of the part, or of the nearest part around it that is known."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)

    def put(self, place: Place, line: int) -> None:
        """Take down that a part starts on a line."""
        if place in self.lines:
            self.repeated.append((place, line))
        else:
            self.lines[place] = line


def positions_in(text: str) -> Positions:
    """The places of all parts of a document.

    Args:
        text: JSON that is known to be valid. The parser of the standard library keeps no positions.
    """
    found = Positions()
    inside: list[str] = []
    place: list[str | int] = []  # one step for each open object or list
    key_expected, line, scanned = False, 1, 0
    for token in _TOKEN.finditer(text):
        word = token.group()
        line += text.count("\n", scanned, token.start())
        scanned = token.start()
        if inside and inside[-1] == "[" and word not in "],":
            found.put(tuple(place), line)
        if word in ("{", "["):
            inside.append(word)
            place.append("" if word == "{" else 0)
            key_expected = word == "{"
        elif word in ("}", "]"):
            inside.pop()
            place.pop()
            key_expected = False
        elif word == ",":
            key_expected = inside[-1] == "{"
            if not key_expected:
                place[-1] = int(place[-1]) + 1
        elif key_expected:
            place[-1] = json.loads(word)
            found.put(tuple(place), line)
            key_expected = False
    return found
