"""The retrieval task: notes of random numbers among the lines of a text, and questions about them much later."""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

KEY, VALUE = 4, 4
"""Letters of a note's name, and digits of its number."""


@dataclass(frozen=True)
class Sample:
    """A text with what its bytes count.

    Attributes:
        text: the bytes.
        weights: of the loss of each byte: nothing for random letters and digits that cannot be known, more for
            the digits of an answer.
    """

    text: bytes
    weights: list[float]


def note(name: str, value: str) -> bytes:
    """A line to remember."""
    return f"# note {name}: {value}\n".encode()


def question(name: str) -> bytes:
    """The beginning of a line that the number ends."""
    return f"# what was {name}? ".encode()


def random_notes(count: int, numbers: random.Random) -> dict[str, str]:
    """Numbers by different names."""
    notes: dict[str, str] = {}
    while len(notes) < count:
        name = "".join(numbers.choices(string.ascii_lowercase, k=KEY))
        notes[name] = "".join(numbers.choices(string.digits, k=VALUE))
    return notes


def sample(text: bytes, length: int, count: int, asked: int, numbers: random.Random, weight: float) -> Sample:
    """A text of `length` bytes with notes in it and questions, each after its note.

    Args:
        text: at least as long.
        length: of the result.
        count: notes.
        asked: questions.
        numbers: where everything random comes from.
        weight: of the digits of an answer.
    """
    notes = random_notes(count, numbers)
    size = len(note("k" * KEY, "v" * VALUE)), len(question("k" * KEY)) + VALUE + 1
    lines = text[: length - count * size[0] - asked * size[1]].splitlines(keepends=True)
    placed = {name: numbers.randrange(len(lines) + 1) for name in notes}
    events = [(place, 0, name) for name, place in placed.items()]
    events += [(numbers.randint(placed[it], len(lines)), 1, it) for it in numbers.choices(list(notes), k=asked)]
    events.sort()
    pieces: list[bytes] = []
    weights: list[float] = []
    at = 0
    for place, is_asked, name in events:
        plain = b"".join(lines[at:place])
        at = place
        pieces.append(plain)
        weights += [1.0] * len(plain)
        if is_asked:
            pieces.append(question(name) + notes[name].encode() + b"\n")
            # "# what was " may come anywhere and the name is one of many; the digits are what is learnt.
            weights += [0.1] * 11 + [0.0] * KEY + [0.5] * 2 + [weight] * VALUE + [1.0]
        else:
            pieces.append(note(name, notes[name]))
            weights += [0.1] * 7 + [0.0] * KEY + [0.5] * 2 + [0.0] * VALUE + [0.5]
    rest = b"".join(lines[at:])
    whole = b"".join(pieces) + rest
    weights += [1.0] * len(rest)
    missing = length - len(whole)
    return Sample(whole + b"\n" * missing, weights + [0.0] * missing)


def prompt(text: bytes, length: int, count: int, numbers: random.Random) -> tuple[bytes, bytes]:
    """A prompt of `length` bytes that ends in a question about one of its notes, and the answer."""
    notes = random_notes(count, numbers)
    asked = numbers.choice(list(notes))
    end = question(asked)
    size = len(note("k" * KEY, "v" * VALUE))
    lines = text[: length - count * size - len(end) - 1].splitlines(keepends=True)
    places = sorted((numbers.randrange(len(lines)), name) for name in notes)
    for place, name in reversed(places):
        lines.insert(place, note(name, notes[name]))
    body = b"".join(lines)
    body += b"\n" * (length - len(body) - len(end))
    return body + end, notes[asked].encode()
