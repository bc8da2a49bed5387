"""Hostile files and texts: an error that names the place, or a right answer; nothing else, and never a default."""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from pydantic_settings import SettingsConfigDict

from dsa_config import BadValue, LiveSettings, SettingError, live, setting
from dsa_config.sources.positions import in_dotenv, in_toml, in_yaml


class Hostile(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="HOSTILE_")
    config_table = ("tool", "hostile")

    flag: bool = setting(False)
    size: int = setting(1, ge=0, le=100)
    ratio: float = setting(0.5, gt=0, le=1)
    name: str = setting("n")
    tags: tuple[str, ...] = setting(())
    table: dict[str, int] = setting({})


hostile = live(Hostile)
FIELDS = ["flag", "size", "ratio", "name", "tags", "table"]
quick = hypothesis(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars, lambda it: st.lists(it, max_size=3) | st.dictionaries(st.text(max_size=4), it, max_size=3)
)
keys = st.sampled_from([*FIELDS, "include", "profile", "profiles", "$schema", "HOSTILE_SIZE"]) | st.text(max_size=5)


@pytest.fixture(autouse=True)
def _unload():
    yield
    hostile.load()


def expect_error_or_answer(name: str, content: bytes) -> None:
    """Load a file. Refused, it leaves everything; taken, every value is right and can be explained."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        hostile.load(file=None, dotenv=None)
        try:
            hostile.load(**{"dotenv" if name == ".env" else "file": path})
        except SettingError:
            assert hostile.snapshot() == Hostile()
            return
        taken = hostile.snapshot()
        for field in FIELDS:
            it = hostile.explain(field)
            assert it.value == getattr(taken, field)
            assert it.source in ("file", "dotenv", "default")
            assert it.source == "default" or str(path) in it.origin


@quick
@given(st.sampled_from(["a.toml", "a.yaml", "a.json", "pyproject.toml", ".env"]), st.text() | st.binary())
def test_any_text(name, content):
    """Whatever stands in a file."""
    expect_error_or_answer(name, content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)


@quick
@given(st.sampled_from(["a.yaml", "a.json"]), st.dictionaries(keys, values, max_size=5))
@example("a.json", {"profiles": {"a": {"size": 101}}})
@example("a.yaml", {"include": [""]})
@example("a.yaml", {"profile": 3, "profiles": {"3": {}}})
@example("a.json", {"profile": ["x"], "profiles": {}})
def test_any_document(name, document):
    """Well-formed files with keys and values of any type."""
    expect_error_or_answer(name, json.dumps(document).encode())


@quick
@given(st.lists(st.tuples(keys, st.text(max_size=12)), max_size=5))
def test_any_assignments(lines):
    """Lines that look like TOML and like dotenv."""
    text = "\n".join(f"{key} = {value}" for key, value in lines).encode("utf-8", "surrogatepass")
    expect_error_or_answer("a.toml", text)
    expect_error_or_answer(".env", text.replace(b" = ", b"=").replace(b"size", b"HOSTILE_SIZE"))


@quick
@given(st.sampled_from(FIELDS), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example("size", "١٢")
@example("size", "9" * 5000)
@example("ratio", "1e400")
@example("table", '{"a": ' * 20_000)
@example("tags", '["a", ["b"]]')
def test_any_environment_text(field, text):
    """The live object and the constructor agree: the same value, or an error of the same words."""
    variable = f"HOSTILE_{field.upper()}"
    os.environ[variable] = text
    try:
        outcomes = [_outcome(lambda: getattr(hostile, field)), _outcome(lambda: getattr(Hostile(), field))]
    finally:
        left = os.environ.pop(variable)
    assert left == text
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].startswith(f"BadValue: {variable}=") or not outcomes[0].startswith("BadValue")


def _outcome(read) -> str:
    try:
        return repr(read())
    except BadValue as error:
        return f"BadValue: {error}"


toml_keys = st.text("abcxyz_-", min_size=1, max_size=6)


@quick
@given(st.dictionaries(toml_keys, st.integers() | st.lists(st.integers(), max_size=3), min_size=1), st.data())
def test_the_line_of_a_toml_key_is_where_it_stands(document, data):
    """For any document: written with comments, blank lines and values of several lines."""
    lines = []
    for key, value in document.items():
        if data.draw(st.booleans()):
            lines += ["", f"# {key} = 0"]
        shown = str(value) if isinstance(value, int) else "[\n  " + ",\n  ".join(map(str, value)) + "\n]"
        lines += f'"{key}" = {shown}'.split("\n")
    text = "\n".join(lines)
    assert tomllib.loads(text) == document
    for key in document:
        position = in_toml(text, [key])
        assert position is not None
        assert lines[position[0] - 1].startswith(f'"{key}" =')


@quick
@given(st.dictionaries(st.text("abcxyz", min_size=1, max_size=6), st.integers(), min_size=1))
def test_the_position_of_a_yaml_or_json_value_is_where_it_stands(document):
    """Line and column, for any document."""
    for text in (json.dumps(document, indent=1), "".join(f"{json.dumps(key)}: {it}\n" for key, it in document.items())):
        for key, value in document.items():
            position = in_yaml(text, [key])
            assert position is not None
            line, column = position
            assert column is not None
            assert text.split("\n")[line - 1][column - 1 :].startswith(str(value))


def test_what_is_not_there_has_no_position():
    """A missing key, a text that is no document, a scalar where a table was."""
    assert in_toml("a = 1\nb = = 2", ["b"]) is None
    assert in_toml("a = 1", ["a", "b"]) is None
    assert in_yaml("a: [", ["a"]) is None
    assert in_yaml("a: 1", ["a", "b"]) is None
    assert in_yaml("", ["a"]) is None
    assert in_dotenv("A=1", ["B"]) is None
