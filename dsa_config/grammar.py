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

from pydantic import AfterValidator, BaseModel, BeforeValidator, PlainValidator, WrapValidator
from pydantic_settings import NoDecode

from dsa_config.bounds import bounds_in_words
from dsa_config.errors import Rejected, nearest
from dsa_config.old_words import OldWords
from dsa_config.secrecy import holds_secrets

TRUE_WORDS = ("1", "true", "yes", "y", "on", "t")
FALSE_WORDS = ("0", "false", "no", "n", "off", "f")
BOOLEAN_WORDS = "1/0, true/false, yes/no, y/n, on/off, t/f (any case)"

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|[+-]?(?:inf|infinity|nan)", re.I | re.A)
_FROZEN_COLLECTIONS = (tuple, frozenset)


@dataclasses.dataclass(frozen=True, slots=True)
class ChoicesOf:
    """Metadata of a text field whose choices are found out when needed: `Annotated[str, ChoicesOf(names)]`."""

    names: Callable[[], Sequence[str]]


@dataclasses.dataclass(frozen=True, slots=True)
class Grammar:
    """How one field reads what it is given.

    Attributes:
        read: text or a Python value in; what pydantic is to validate out, or `Rejected`.
        words: what the field takes, in words.
        is_mutable: its values can be changed in place, so that every reader gets a copy.
        is_secret: its values hold pydantic's SecretStr or SecretBytes, and are never shown.
        is_plain: what it makes of a bool, number, text or None depends on nothing else, so that it can be kept.
    """

    read: Callable[[Any], Any]
    words: Callable[[], str]
    is_mutable: bool = False
    is_secret: bool = False
    is_plain: bool = False


def grammar_of(annotation: Any, metadata: Sequence[object]) -> Grammar:
    """The grammar of a field.

    Args:
        annotation: the field's type.
        metadata: its constraints, as pydantic keeps them in `FieldInfo.metadata`.
    """
    annotation, metadata = _plain_type(annotation, metadata)
    if any(isinstance(item, BeforeValidator | WrapValidator | PlainValidator | NoDecode) for item in metadata):
        return Grammar(
            _strip,
            lambda: f"what its validator takes for {_name(annotation)}",
            _is_structured(annotation),
            holds_secrets(annotation),
        )
    chosen = next((item for item in metadata if isinstance(item, ChoicesOf)), None)
    if chosen is not None:
        return _choices(chosen.names, only=True)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return _union([grammar_of(member, metadata) for member in typing.get_args(annotation)])
    grammar = _with_old_words(_for_type(annotation), metadata)
    bounds = bounds_in_words(metadata)
    finite = any(getattr(item, "allow_inf_nan", None) is False for item in metadata)

    def words() -> str:
        plain = grammar.words().replace("a number", "a finite number" if finite else "a number")
        return ", ".join([plain, *bounds]) if annotation is not types.NoneType else plain

    plain = grammar.is_plain and not any(isinstance(item, AfterValidator) for item in metadata)
    return Grammar(grammar.read, words, grammar.is_mutable, grammar.is_secret, plain)


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
    if isinstance(value, str):
        return value.strip()
    raise Rejected("is not text")


def _strip(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _read_json(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"is not JSON ({error})") from None


def _read_none(value: object) -> object:
    if value is None or (isinstance(value, str) and value.strip().lower() == "none"):
        return None
    raise Rejected("is not none")


def _choices(names: Callable[[], Sequence[object]], *, only: bool) -> Grammar:
    """One of some words. `only`: a value that is no text must be among them too, and is not left to pydantic."""

    def read(value: object) -> object:
        choices = names()
        if not isinstance(value, str) and not only:
            return value
        word = value.strip() if isinstance(value, str) else value
        for choice in choices:
            if word == choice or word == str(choice):
                return choice
        close = nearest(str(word), map(str, choices))
        raise Rejected(f"is not a choice, did you mean {close[0]}?" if close else "is not a choice")

    return Grammar(read, lambda: f"one of {', '.join(map(str, names()))}", is_plain=not only)


def _with_old_words(grammar: Grammar, metadata: Sequence[object]) -> Grammar:
    old = next((item for item in metadata if isinstance(item, OldWords)), None)
    if old is None:
        return grammar
    return dataclasses.replace(
        grammar,
        read=lambda value: grammar.read(old.today(value)),
        words=lambda: f"{grammar.words()}, or by an old name {old}",
    )


def _union(members: Sequence[Grammar]) -> Grammar:
    """The first member that reads the text; a value that is no text is left to pydantic if one member takes it."""

    def read(value: object) -> object:
        reasons = []
        for member in members:
            try:
                return member.read(value)
            except Rejected as rejected:
                reasons.append(rejected.reason)
        raise Rejected(reasons[0])

    def words() -> str:
        return ", or ".join(member.words() for member in members)

    return Grammar(
        read,
        words,
        any(member.is_mutable for member in members),
        any(member.is_secret for member in members),
        all(member.is_plain for member in members),
    )


def _for_type(kind: Any) -> Grammar:
    if kind is types.NoneType:
        return Grammar(_read_none, lambda: "none", is_plain=True)
    if kind is bool:
        return Grammar(read_boolean, lambda: f"a boolean: {BOOLEAN_WORDS}", is_plain=True)
    if kind is int:
        return Grammar(read_integer, lambda: "an integer in decimal digits", is_plain=True)
    if kind is float:
        return Grammar(read_float, lambda: "a number", is_plain=True)
    if kind is str:
        return Grammar(_read_text, lambda: "text", is_plain=True)
    if typing.get_origin(kind) is typing.Literal:
        return _choices(lambda: typing.get_args(kind), only=False)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _choices(lambda: [member.value for member in kind], only=False)
    if _is_structured(kind):
        return Grammar(_read_json, lambda: f"JSON for {_name(kind)}", _is_mutable(kind), holds_secrets(kind))
    return Grammar(_strip, lambda: f"text for {_name(kind)}", is_secret=holds_secrets(kind))


def _plain_type(annotation: Any, metadata: Sequence[object]) -> tuple[Any, list[object]]:
    """The type without its wrappers, and all that the wrappers say about it."""
    said = list(metadata)
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            for item in annotation.__metadata__:
                said += [item, *getattr(item, "metadata", ())]
            annotation = annotation.__origin__
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":  # typing's, or typing_extensions' before Python 3.12
            annotation = annotation.__value__
        else:
            return annotation, said


def _is_structured(kind: Any) -> bool:
    kind = typing.get_origin(kind) or kind
    if not isinstance(kind, type):
        return False
    if issubclass(kind, Collection):
        return not issubclass(kind, (str, bytes, bytearray))
    return issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind)


def _is_mutable(kind: Any) -> bool:
    inner = typing.get_args(kind)
    kind = typing.get_origin(kind) or kind
    if issubclass(kind, _FROZEN_COLLECTIONS):
        return any(_is_structured(member) and _is_mutable(member) for member in inner)
    if issubclass(kind, BaseModel):
        return not kind.model_config.get("frozen")
    return not getattr(getattr(kind, "__dataclass_params__", None), "frozen", False)


def _name(kind: Any) -> str:
    return str(kind) if typing.get_origin(kind) else getattr(kind, "__name__", str(kind))
