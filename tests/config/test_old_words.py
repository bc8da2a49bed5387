"""Words that a field of choices once took."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic_settings import SettingsConfigDict

from dsa_config import BadValue, LiveSettings, live, setting
from dsa_config.errors import Rejected
from dsa_config.old_words import OldWords
from dsa_config.tools.check import check
from dsa_config.tools.export_schema import settings_schema

PAINTS = OldWords({"scarlet": "red", "navy": "blue"}, removed={"puce": "red or blue"})


class Painted(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="PAINTED_")

    paint: Annotated[Literal["red", "blue"], PAINTS] = setting("red")
    only: Annotated[Literal["one"], OldWords({"uno": "one"})] = setting("one")
    maybe: Annotated[Literal["red"], OldWords({"scarlet": "red"})] | None = setting(None)


@pytest.fixture
def painted():
    it = live(Painted)
    yield it
    it.reset()


@pytest.mark.parametrize(("given", "read"), [("navy", "blue"), (" scarlet\n", "red"), ("blue", "blue")])
def test_an_old_word_is_read_as_what_it_means_today(painted, monkeypatch, given, read):
    """From the environment, in the process, in a scope and in the constructor; who reads sees today's words only."""
    monkeypatch.setenv("PAINTED_PAINT", given)
    assert painted.paint == Painted().paint == Painted(paint=given).paint == read
    monkeypatch.delenv("PAINTED_PAINT")
    with painted.override(paint=given):
        assert painted.paint == read
    painted.set(paint=given)
    assert painted.explain("paint").value == read
    assert painted.explain("paint").layers[0].given == given


def test_a_removed_word_is_recognised(painted, monkeypatch):
    """The error says that it was removed and what to use, and which words there are."""
    monkeypatch.setenv("PAINTED_PAINT", "puce")
    with pytest.raises(BadValue, match="'puce' .*: was removed, use red or blue; paint takes one of red, blue, or by"):
        painted.paint  # noqa: B018
    (finding,) = check(Painted)
    assert (finding.kind, finding.setting) == ("bad-value", "paint")
    assert "was removed, use red or blue" in finding.message


@pytest.mark.parametrize("given", ["pink", "", 3, None, ["red"], "SCARLET"])
def test_other_words_are_refused_as_ever(painted, given):
    """What was never a word is no choice; the error lists choices and old words."""
    with pytest.raises(BadValue, match=r"one of red, blue, or by an old name scarlet \(red\), navy \(blue\)$"):
        painted.set(paint=given)


def test_a_choice_or_none(painted):
    """Within a union the old words belong to their member."""
    for given, read in (("scarlet", "red"), ("none", None), ("red", "red")):
        painted.set(maybe=given)
        assert painted.maybe == read


def test_the_schema_takes_old_words(painted):
    """An editor finds nothing wrong with what the reader takes, of one choice or several."""
    schema = settings_schema(Painted)
    assert schema["properties"]["paint"]["x-old-words"] == {"scarlet": "red", "navy": "blue"}
    validator = Draft202012Validator(schema)
    for document in ({"paint": "navy"}, {"only": "uno"}, {"only": "one"}, {"maybe": "scarlet"}, {"maybe": None}):
        assert validator.is_valid(document)
        assert Painted(**document) is not None
    for document in ({"paint": "puce"}, {"only": "two"}, {"maybe": "navy"}):
        assert not validator.is_valid(document)
        with pytest.raises((Rejected, ValueError)):
            Painted(**document)
