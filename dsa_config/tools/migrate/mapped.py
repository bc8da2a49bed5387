"""A text taken out of a file, with escapes undone, that still knows where each character stood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NOWHERE = -1
"""The place of text that the file does not hold."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """A text and, for each of its characters, the place in the file."""

    text: str
    places: Sequence[int]

    @classmethod
    def part(cls, source: str, start: int, end: int) -> Mapped:
        """A part of the file as it stands."""
        return cls(source[start:end], range(start, end))

    def place(self, start: int, end: int) -> int | None:
        """Where a stretch of the text, which is not empty, stands in the file; None where it is there in pieces."""
        places = self.places[start:end]
        first = places[0]
        return first if first != NOWHERE and list(places) == list(range(first, first + end - start)) else None

    def near(self, start: int) -> int:
        """The place in the file of the first character, from one on, that stands there."""
        return next((place for place in self.places[start:] if place != NOWHERE), 0)

    def __add__(self, other: Mapped) -> Mapped:
        return Mapped(self.text + other.text, [*self.places, *other.places])


EMPTY = Mapped("", ())


def virtual(text: str) -> Mapped:
    """Text that stands nowhere in the file."""
    return Mapped(text, [NOWHERE] * len(text))
