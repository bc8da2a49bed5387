"""How text becomes a value: one grammar per type, the same for every source, field and Python release.

Pydantic validates what comes out (ranges, choices, the user's own validators). What it would guess at is decided
here first: which words are booleans, that `2.0` and `1_000` are not integers, that blanks around a value mean nothing.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import re
import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any

import annotated_types
from pydantic import BaseModel

from dsa_config.errors import Rejected, nearest

TRUE_WORDS = ("1", "true", "yes", "y", "on", "t")
FALSE_WORDS = ("0", "false", "no", "n", "off", "f")
BOOLEAN_WORDS = "1/0, true/false, yes/no, y/n, on/off, t/f (any case)"

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan)", re.I | re.A)


@dataclasses.dataclass(frozen=True, slots=True)
class ChoicesOf:
    """Metadata of a text field whose choices are found out when needed: `Annotated[str, ChoicesOf(names)]`."""

    names: Callable[[], Sequence[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Grammar:
    """How one field reads what it is given (`read`), and what it takes, in words (`allowed`)."""

    read: Callable[[Any], Any]
    allowed: Callable[[], str]


def grammar_of(annotation: Any, metadata: Sequence[object]) -> Grammar:
    """The grammar of a field.

    Args:
        annotation: the field's type.
        metadata: its constraints, as pydantic keeps them in `FieldInfo.metadata`.
    """
    inner, optional = _without_none(annotation)
    chosen = next((item for item in metadata if isinstance(item, ChoicesOf)), None)
    grammar = _for_type(inner) if chosen is None else _for_choices(chosen.names)
    bounds = _bounds(metadata)
    finite = any(getattr(item, "allow_inf_nan", None) is False for item in metadata)

    def allowed() -> str:
        words = grammar.allowed()
        words = words.replace("a number", "a finite number") if finite else words
        return f"{words}{f', {bounds}' if bounds else ''}{', or none' if optional else ''}"

    return Grammar(_or_none(grammar.read) if optional else grammar.read, allowed)


def read_boolean(value: object) -> object:
    """True or False from a word of the boolean grammar, a bool, or the integers 1 and 0."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in TRUE_WORDS:
            return True
        if word in FALSE_WORDS:
            return False
        raise Rejected("is not a boolean")
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise Rejected("is not a boolean")


def read_integer(value: object) -> object:
    """An int from plain decimal digits with an optional sign, or from an int that is not a bool."""
    if isinstance(value, str):
        digits = value.strip()
        if not _INTEGER.fullmatch(digits):
            raise Rejected("is not an integer in plain decimal digits")
        try:
            return int(digits)
        except ValueError:  # more digits than Python converts
            raise Rejected("has too many digits") from None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Rejected("is not an integer")


def read_float(value: object) -> object:
    """A float from decimal or scientific notation, or from a float or an int that is not a bool."""
    if isinstance(value, str):
        number = value.strip()
        if not _FLOAT.fullmatch(number):
            raise Rejected("is not a number")
        return float(number)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    raise Rejected("is not a number")


def _read_text(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _read_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise Rejected(f"is not JSON ({error})") from None


def _for_choices(names: Callable[[], Sequence[object]]) -> Grammar:
    def read(value: object) -> object:
        choices = names()
        if not isinstance(value, str):
            return value
        word = value.strip()
        for choice in choices:
            if word == str(choice):
                return choice
        close = nearest(word, map(str, choices))
        raise Rejected(f"is not a choice, did you mean {close[0]}?" if close else "is not a choice")

    return Grammar(read, lambda: f"one of {', '.join(map(str, names()))}")


def _for_type(kind: Any) -> Grammar:
    origin = typing.get_origin(kind)
    if kind is bool:
        return Grammar(read_boolean, lambda: f"a boolean: {BOOLEAN_WORDS}")
    if kind is int:
        return Grammar(read_integer, lambda: "an integer in decimal digits")
    if kind is float:
        return Grammar(read_float, lambda: "a number")
    if origin is typing.Literal:
        return _for_choices(lambda: typing.get_args(kind))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _for_choices(lambda: [member.value for member in kind])
    name = str(kind) if origin else getattr(kind, "__name__", str(kind))
    if _is_structured(origin or kind):
        return Grammar(_read_json, lambda: f"JSON for {name}")
    return Grammar(_read_text, lambda: "text" if kind is str else f"text for {name}")


def _is_structured(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    if issubclass(kind, Collection):
        return not issubclass(kind, (str, bytes, bytearray))
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation, False
    members = [member for member in typing.get_args(annotation) if member is not types.NoneType]
    optional = len(members) < len(typing.get_args(annotation))
    return (members[0] if len(members) == 1 else annotation), optional


def _or_none(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read_or_none(value: object) -> object:
        if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
            return None
        return read(value)

    return read_or_none


def _bounds(metadata: Sequence[object]) -> str:
    low = high = ""
    for item in metadata:
        match item:
            case annotated_types.Ge(ge=bound):
                low = f"{bound} <= "
            case annotated_types.Gt(gt=bound):
                low = f"{bound} < "
            case annotated_types.Le(le=bound):
                high = f" <= {bound}"
            case annotated_types.Lt(lt=bound):
                high = f" < {bound}"
            case _:
                pass
    return f"{low}x{high}" if low or high else ""
