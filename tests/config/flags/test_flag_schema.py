"""The JSON Schema of flag files: what editors complete and check."""

from __future__ import annotations

import enum
import subprocess
import sys
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft202012Validator
from pydantic import WithJsonSchema
from pydantic_settings import SettingsConfigDict

from dsa_config import DSASettings, LiveSettings, setting
from dsa_config.flags import schema
from dsa_config.flags.schema import flags_schema, json_types, type_in_json

SCHEMA = flags_schema(DSASettings)
GOOD: dict[str, Any] = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}


def errors_in(flag: dict[str, Any], name: str = "fuse_topk", **more: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(SCHEMA).iter_errors({"flags": {name: flag}, **more})]


def test_it_is_a_schema():
    """By its own dialect, and with every setting's name and description."""
    Draft202012Validator.check_schema(SCHEMA)
    flags = SCHEMA["properties"]["flags"]["properties"]
    assert set(flags) == set(DSASettings.model_fields)
    assert flags["fuse_topk"]["description"].startswith("Run top-k")


def test_it_describes_what_is_right():
    """Rules with any of the operators, shared rules, metadata and the address of the schema itself."""
    rule = {"if": [{"$ref": "glm"}, {"fractional": [{"var": "user"}, ["on", 25], ["off"]]}, {"var": "x"}]}
    flag = {**GOOD, "targeting": rule, "metadata": {"owner": "us"}}
    more = {"$schema": "flags.schema.json", "$evaluators": {"glm": {"in": ["glm", {"var": ["model"]}]}}, "metadata": {}}
    assert errors_in(flag, **more) == []
    assert errors_in({**GOOD, "targeting": {}}) == []


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("fuse_topk", [True], ["on", 1, None]),
        ("prefill_dense_attn_kv_len_threshold", [0, 2**31 - 1], [-1, 2**31, "7", 1.5]),
        ("kv_format", ["fp8"], ["bf16", 8]),
        ("mem_fraction_static", [None, 0.5, 1], [2, "none"]),
        ("topk_backend", ["auto"], ["Not A Name"]),
        ("prefill_attention", ["dense", "flashmla_kv"], ["flashmla_auto", None]),
    ],
)
def test_variants_are_values_of_the_setting(name, good, bad):
    """Types, bounds and choices of each field hold for its variants."""
    for value in good:
        assert errors_in({"state": "ENABLED", "variants": {"v": value}}, name) == []
    for value in bad:
        assert errors_in({"state": "ENABLED", "variants": {"v": value}}, name) != []


@pytest.mark.parametrize(
    "change",
    [
        {"state": "ON"},
        {"variants": {}},
        {"variants": {"": True}},
        {"defaultVariant": 1},
        {"targeting": {"iff": [1]}},
        {"targeting": {"if": [1], "or": [1]}},
        {"targeting": {"==": [1]}},
        {"targeting": {"!": [{"log": "x"}]}},
        {"targeting": {"fractional": [["on", -1]]}},
        {"unknown": 1},
        {"metadata": {"a": []}},
    ],
)
def test_it_sees_what_is_wrong(change):
    """Shapes that a flag file may not have are errors in the editor already."""
    assert errors_in({**GOOD, **change}) != []
    assert errors_in(GOOD, name="fuse_tokp") != []


class Colour(enum.IntEnum):
    RED = 1


class Kinds(LiveSettings):
    colour: Colour = setting(Colour.RED)
    one: Literal[1] = setting(1)
    either: int | list[int] | None = setting(None)
    anything: Any = setting(None)
    some: int | Any = setting(1)
    listed: Annotated[int, WithJsonSchema({"type": ["integer", "null"]})] = setting(1)
    words: Annotated[str, WithJsonSchema({"enum": ["a", None]})] = setting("a")


def test_types_of_fields():
    """Enumerations, constants and unions tell their JSON types; what takes anything has none."""
    assert json_types(Kinds) == {
        "colour": {"integer"},
        "one": {"integer"},
        "either": {"integer", "array", "null"},
        "anything": frozenset(),
        "some": frozenset(),
        "listed": {"integer", "null"},
        "words": {"string", "null"},
    }


def test_types_of_values():
    """Each value of a JSON document has one type."""
    values = [None, True, 1, 1.0, "", [], {}]
    assert [type_in_json(value) for value in values] == "null boolean integer number string array object".split()


def test_a_type_without_a_schema(flags):
    """A field that no schema can describe takes what its parser takes, and so do its neighbours."""

    class Opaque(LiveSettings):
        model_config = SettingsConfigDict(arbitrary_types_allowed=True)

        thing: complex | None = setting(None)
        handle: type(sys) | None = setting(None)  # type: ignore[valid-type]
        on: bool = setting(True)

    assert json_types(Opaque)["on"] == frozenset()
    assert flags_schema(Opaque)["properties"]["flags"]["properties"]["on"]["type"] == "object"
    flag = {"state": "ENABLED", "variants": {"v": False}, "defaultVariant": "v"}
    assert flags({"on": flag}, cls=Opaque).evaluate("on").value is False


def test_secrets_are_left_out(monkeypatch):
    """A secret is no flag, so the schema does not offer it."""
    monkeypatch.setattr(schema, "is_flaggable", lambda it: it.name != "kv_format")
    assert "kv_format" not in flags_schema(DSASettings)["properties"]["flags"]["properties"]


def test_importing_flags_is_light():
    """The package, the loader, the client and the schema load no OpenFeature before they are used."""
    program = (
        "import sys; import dsa_config.flags, dsa_config.flags.rules, dsa_config.flags.client, dsa_config.flags.schema;"
        "late = ('openfeature', 'json_logic', 'mmh3', 'torch');"
        "print([name for name in sys.modules if name.partition('.')[0] in late])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
