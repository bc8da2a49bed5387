"""A document as one text that two readings can be compared by."""

from __future__ import annotations

from collections.abc import Mapping


def meaning_of(value: object) -> str:
    """Shape, types and texts of a document. Texts stay as they are, so that names in them are still whole tokens."""
    match value:
        case str():
            return f"\0text {value}\0"
        case Mapping():
            return f"\0mapping{''.join(meaning_of(key) + meaning_of(value[key]) for key in value)}\0"
        case list() | tuple():
            return f"\0items{''.join(map(meaning_of, value))}\0"
        case _:
            return f"\0{type(value).__name__} {value!r}\0"
