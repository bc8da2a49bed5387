"""Text to value: one grammar per type, whatever the field."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated, Literal, NewType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from dsa_config import BadValue, LiveSettings, live, setting
from dsa_config.declared import settings_of
from dsa_config.errors import Rejected
from dsa_config.grammar import FALSE_WORDS, TRUE_WORDS


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Limits(BaseModel):
    low: int = 0
    high: int = 9


Bytes = NewType("Bytes", int)


def size(value: object) -> object:
    return int(value.removesuffix("k")) * 1024 if isinstance(value, str) else value


def split(value: object) -> object:
    return value.split(",") if isinstance(value, str) else value


class EveryType(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="GRAMMAR_")

    flag: bool = setting(False)
    count: int = setting(0)
    share: float = setting(0.0)
    word: str = setting("")
    choice: Literal["a", "b", 3] = setting("a")
    colour: Colour = setting(Colour.RED)
    maybe: int | None = setting(None)
    either: int | str = setting(1)
    number: int | float = setting(0)
    bounded: Annotated[int, Field(ge=0)] | None = setting(None)
    bytes_: Bytes = setting(Bytes(0))
    flag_or_auto: Literal[True, "auto"] = setting("auto")
    one_of_two: Limits | list[int] = setting([])
    sized: Annotated[int, BeforeValidator(size)] = setting(0)
    raw: Annotated[list[str], NoDecode, BeforeValidator(split)] = setting([])
    code: str = setting("aa", min_length=2, max_length=4, pattern="^a")
    step: int = setting(64, multiple_of=64)
    names: list[str] = setting([])
    limits: Limits = setting(Limits())
    path: Path = setting(Path())


def parse(field: str, text: object) -> object:
    return settings_of(EveryType)[field].parse(text)


@pytest.mark.parametrize("word", [*TRUE_WORDS, *FALSE_WORDS])
def test_boolean_words_in_any_case_and_between_blanks(word):
    """Each word of the grammar is read in any case, and blanks around it mean nothing."""
    expected = word in TRUE_WORDS
    assert [parse("flag", text) for text in (word, word.upper(), word.title(), f" {word}\t\n")] == [expected] * 4


@given(st.text())
def test_no_other_text_is_a_boolean(text):
    """Everything but the words is an error; nothing becomes the default."""
    if text.strip().lower() in (*TRUE_WORDS, *FALSE_WORDS):
        assert parse("flag", text) in (True, False)
    else:
        with pytest.raises(Rejected):
            parse("flag", text)


@given(st.integers(), st.sampled_from(["{}", "+{}", " {} ", "00{}"]))
def test_integers_are_plain_decimal_digits(number, form):
    """Decimal digits with an optional sign read as that integer."""
    text = form.format(number) if number >= 0 else f" {number} "
    assert parse("count", text) == number


@pytest.mark.parametrize("text", ["", " ", "2.0", "1_000", "0x10", "1e3", "١٢", "--1", "+ 1", "one", "9" * 5000])
def test_what_is_not_an_integer(text):
    """Python's other notations, other scripts' digits, the empty string and endless numbers are errors."""
    with pytest.raises(Rejected):
        parse("count", text)


@pytest.mark.parametrize("text", ["", "1_0", "0x1", "1,5", "nan?", "1e", "e5", "١"])
def test_what_is_not_a_number(text):
    """A float takes decimal and scientific notation only."""
    with pytest.raises(Rejected):
        parse("share", text)


@given(st.floats(allow_nan=False))
def test_floats_round_trip_through_text(number):
    """What Python prints of a float reads back as that float."""
    assert parse("share", repr(number)) == number


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flag", 2),
        ("flag", 1.0),
        ("flag", None),
        ("count", 2.0),
        ("count", True),
        ("count", None),
        ("share", True),
        ("share", "x"),
        ("choice", 4),
        ("choice", "c"),
        ("names", "not json"),
        ("names", [1]),
        ("limits", '{"low": "x"}'),
        ("names", "[" * 100_000),
        ("word", b"bytes"),
        ("number", "1_000"),
        ("bounded", "2.0"),
        ("bounded", -1),
        ("bytes_", "1_000"),
        ("flag_or_auto", False),
        ("one_of_two", "7"),
        ("code", "a"),
        ("code", "bbb"),
        ("step", "65"),
    ],
)
def test_python_values_of_another_type_are_refused(field, value):
    """A value given in the program must be of the field's type; nothing is cut or rounded to fit."""
    with pytest.raises(Rejected):
        parse(field, value)


def test_every_other_type_of_pydantic():
    """Choices, enums, optional values, JSON for structures, paths and unions are read from text."""
    assert parse("flag", 1) is True
    assert parse("choice", " b ") == "b"
    assert parse("choice", "3") == 3
    assert parse("colour", "blue") is Colour.BLUE
    assert parse("colour", Colour.BLUE) is Colour.BLUE
    assert (parse("maybe", "None"), parse("maybe", "7")) == (None, 7)
    assert parse("either", " many ") == "many"
    assert parse("names", '["x", "y"]') == ["x", "y"]
    assert parse("limits", '{"high": 5}') == Limits(high=5)
    assert parse("path", " /tmp ") == Path("/tmp")
    assert parse("word", " spaced out ") == "spaced out"


def test_wrapped_and_joined_types():
    """Annotated, NewType and unions are read by the grammars of what is inside them."""
    assert (parse("number", "2"), parse("number", "2.5")) == (2, 2.5)
    assert (parse("bounded", " 7 "), parse("bounded", "NONE"), parse("bytes_", "7")) == (7, None, 7)
    assert (parse("flag_or_auto", "True"), parse("flag_or_auto", "auto")) == (True, "auto")
    assert (parse("one_of_two", "[1]"), parse("one_of_two", '{"low": 3}')) == ([1], Limits(low=3))


def test_the_users_own_reading_comes_first():
    """A field with a validator that runs before pydantic reads text its own way."""
    assert parse("sized", " 4k ") == 4096
    assert parse("raw", "a,b") == ["a", "b"]


def test_constraints_are_told():
    """Every kind of bound is part of what is allowed."""
    allowed = {name: it.allowed for name, it in settings_of(EveryType).items()}
    assert allowed["code"] == "text, at least 2 long, at most 4 long, of the form ^a"
    assert allowed["step"] == "an integer in decimal digits, a multiple of 64"
    assert allowed["bounded"] == "an integer in decimal digits, 0 <= x, or none"


def test_construction_tells_what_is_allowed_too():
    """pydantic's own error carries our reason and what is wanted."""
    with pytest.raises(ValueError, match="is not a boolean; wanted a boolean: 1/0"):
        EveryType(flag="maybe")


def test_the_error_says_what_is_allowed(monkeypatch):
    """Whatever the type, the error names the variable, the text, where it was and what the setting takes."""
    cases = {
        "flag": ("maybe", "a boolean: 1/0"),
        "count": ("1.5", "an integer in decimal digits"),
        "choice": ("aa", "one of a, b, 3"),
        "colour": ("bleu", "did you mean blue.*one of red, blue"),
        "maybe": ("x", "decimal digits.*an integer in decimal digits, or none"),
        "names": ("x", r"is not JSON .*JSON for list\[str\]"),
        "limits": ('{"low": "x"}', "low: input should be a valid integer.*JSON for Limits"),
    }
    live_object = live(EveryType)
    for field, (text, words) in cases.items():
        monkeypatch.setenv(f"GRAMMAR_{field.upper()}", text)
        with pytest.raises(
            BadValue, match=rf"^GRAMMAR_{field.upper()}='.*' \(from environment variable GRAMMAR_.*\): .*{words}"
        ):
            getattr(live_object, field)


def test_a_long_text_is_cut_in_the_error(monkeypatch):
    """A value of a megabyte does not make an error of a megabyte."""
    monkeypatch.setenv("GRAMMAR_COUNT", "x" * 1_000_000)
    with pytest.raises(BadValue, match="1000002 characters") as caught:
        live(EveryType).count  # noqa: B018
    assert len(str(caught.value)) < 500


def test_bytes_that_are_no_text(monkeypatch):
    """An undecodable environment value is an error that can itself be printed."""
    monkeypatch.setenv("GRAMMAR_FLAG", "\udcff\udcfe")
    with pytest.raises(BadValue) as caught:
        live(EveryType).flag  # noqa: B018
    assert str(caught.value).encode("utf-8")
