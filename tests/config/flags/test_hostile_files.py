"""Whatever a flag file holds: a FlagFileError, or flags that say what the file says."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dsa_config import BadValue, DSASettings
from dsa_config.flags import FlagContext, FlagFileError
from dsa_config.flags.operators import OPERATORS
from dsa_config.flags.positions import positions_in
from dsa_config.flags.rules import Flagged, FlagSet, load_flags
from dsa_config.flags.schema import flags_schema

SCHEMA = Draft202012Validator(flags_schema(DSASettings))
WORDS = st.sampled_from(["on", "off", "true", "x", "", "targetingKey", "$flagd", "flags", "1.2.3", ">=", "\ud800", "ü"])
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 2**33), st.floats(allow_nan=False), WORDS)
ANY_JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
OPERATOR = st.sampled_from([*OPERATORS, "$ref", "log", "nonsense"])


def operation(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda name, given: {name: given}, OPERATOR, st.lists(inner, max_size=4) | inner)


RULES = st.recursive(SCALARS, lambda inner: operation(inner) | st.lists(inner, max_size=3), max_leaves=12)
TARGETING = operation(RULES) | st.builds(lambda rest: {"if": [*rest, "on"]}, st.lists(RULES, max_size=3)) | ANY_JSON
VARIANTS = st.dictionaries(WORDS, st.booleans() | SCALARS, max_size=3) | st.just({"on": True, "off": False})
FLAG = st.fixed_dictionaries(
    {"state": st.sampled_from(["ENABLED", "ENABLED", "DISABLED", "on", None]), "variants": VARIANTS},
    optional={"defaultVariant": WORDS | st.none() | SCALARS, "targeting": TARGETING, "metadata": ANY_JSON},
)
LIKELY = st.builds(
    lambda rule: {"state": "ENABLED", "variants": {"on": True, "off": False}, "targeting": rule}, TARGETING
)
NAMES = st.sampled_from(
    ["fuse_topk", "fuse_topk", "use_aiter", "kv_format", "mem_fraction_static", "fuse", "__class__"]
)
DOCUMENTS = st.fixed_dictionaries(
    {"flags": st.dictionaries(NAMES, FLAG | LIKELY, max_size=3)},
    optional={"$evaluators": st.dictionaries(WORDS, operation(RULES), max_size=2), "metadata": ANY_JSON, "x": ANY_JSON},
)
CONTEXTS = st.builds(
    lambda values: FlagContext(**values),
    st.dictionaries(st.sampled_from(["x", "on", "model"]), st.integers(-2, 2) | st.text(max_size=3)),
)


def loaded(text: str | bytes) -> FlagSet | None:
    """The flags of a file with this text, or None where it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "flags.json")
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        try:
            return load_flags(path, DSASettings)
        except FlagFileError as error:
            return None if error.errors and str(error).startswith(str(path)) else pytest.fail(str(error))


def check_answers(flags: FlagSet, context: FlagContext) -> None:
    for name in flags.names:
        try:
            found = flags.evaluate(name, context)
        except BadValue:  # and no other
            continue
        assert found is None or isinstance(found, Flagged)


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, CONTEXTS)
def test_documents_that_are_nearly_flag_files(document, context):
    """Refused, or described by the schema and evaluated without any other error."""
    flags = loaded(json.dumps(document))
    if flags is not None:
        assert list(SCHEMA.iter_errors(document)) == []
        check_answers(flags, context)


@settings(max_examples=200, deadline=None)
@given(ANY_JSON | st.text() | st.binary())
def test_anything_at_all(anything):
    """JSON of any shape, text and bytes."""
    flags = loaded(anything if isinstance(anything, str | bytes) else json.dumps(anything))
    assert flags is None or flags.names == ()


@settings(max_examples=200, deadline=None)
@given(LIKELY, CONTEXTS, st.integers(0, 3))
def test_a_rule_says_the_same_twice(flag, context, indent):
    """Two sets of one file give one answer, kept or not."""
    text = json.dumps({"flags": {"fuse_topk": flag}}, indent=indent)
    one, other = loaded(text), loaded(text)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert answer(one, context) == answer(one, context) == answer(other, context)


def answer(flags: FlagSet, context: FlagContext) -> object:
    try:
        found = flags.evaluate("fuse_topk", context)
    except BadValue as error:
        return error.reason
    return found and (found.value, found.variant, found.reason)


@settings(max_examples=200, deadline=None)
@given(ANY_JSON, st.sampled_from([None, 0, 1, "\t"]))
def test_every_part_has_a_line(document, indent):
    """The places that are found are those of the document, and the lines those where the keys stand."""
    text = json.dumps(document, indent=indent)
    found = positions_in(text)
    assert set(found.lines) == set(places(document))
    assert found.repeated == []
    lines = text.split("\n")
    for place, line in found.lines.items():
        if isinstance(place[-1], str):
            assert json.dumps(place[-1]) in lines[line - 1]


def places(part: object) -> list[tuple[str | int, ...]]:
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
    return [place for key, inner in items for place in ((key,), *((key, *rest) for rest in places(inner)))]


def test_lines_of_parts():
    """Keys that stand twice are told with the line of the second; a part that is unknown has its owner's line."""
    found = positions_in('{"a": [\n1, {"b": 2,\n"b": 3}],\n"c,": "}{[\\"", "d": {}}')
    assert found.lines == {("a",): 1, ("a", 0): 2, ("a", 1): 2, ("a", 1, "b"): 2, ("c,",): 4, ("d",): 4}
    assert found.repeated == [(("a", 1, "b"), 3)]
    assert found.line(("a", 1, "z", "y")) == 2
    assert found.line(("z",)) is None
