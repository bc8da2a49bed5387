"""Snapshots and plain construction: the pydantic side of a settings class."""

from __future__ import annotations

import json
import sys
import threading
from typing import Annotated

import pytest
from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from dsa_config import (
    BadValue,
    BadValues,
    DeclarationError,
    DeprecatedName,
    DSASettings,
    LiveSettings,
    Renamed,
    live,
    setting,
    settings,
)
from dsa_config.declared import settings_of


def test_a_snapshot_is_a_frozen_instance_of_the_class(monkeypatch):
    """It holds every layer's winner as of now, and cannot be changed."""
    monkeypatch.setenv("SGLANG_DSA_KV_FORMAT", "model")
    settings.set(use_aiter=True)
    with settings.override(fuse_topk=False):
        snapshot = settings.snapshot()
    assert isinstance(snapshot, DSASettings)
    assert (snapshot.kv_format, snapshot.use_aiter, snapshot.fuse_topk) == ("model", True, False)
    settings.reset()
    assert snapshot.use_aiter is True
    with pytest.raises(ValidationError, match="frozen"):
        snapshot.use_aiter = False
    assert json.loads(snapshot.model_dump_json())["kv_format"] == "model"


def test_a_snapshot_agrees_with_live_reads_of_defaults_too():
    """A validator that changes values changes the default once, whichever way it is read."""

    class Doubled(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="DOUBLED_")

        number: int = setting(1)

        @field_validator("number")
        @classmethod
        def _double(cls, value: int) -> int:
            return value * 2

    assert [live(Doubled).number, live(Doubled).snapshot().number, Doubled().number] == [2, 2, 2]


def test_the_class_configuration_holds_for_live_reads(monkeypatch):
    """Limits that a class sets for all its fields hold for reads, snapshots and construction alike."""

    class Configured(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="CC_", allow_inf_nan=False, str_to_lower=True)

        share: float = setting(0.5)
        word: str = setting("x")

    monkeypatch.setenv("CC_WORD", "ABC")
    it = live(Configured)
    assert [it.word, it.snapshot().word, Configured().word] == ["abc"] * 3
    monkeypatch.setenv("CC_SHARE", "inf")
    for read in (lambda: it.share, it.snapshot, Configured):
        with pytest.raises(BadValue, match="CC_SHARE='inf'.*finite"):
            read()


def test_values_set_together_are_seen_together():
    """A snapshot never shows half of a set()."""
    stop = threading.Event()
    torn = []

    def write():
        number = 0
        while not stop.is_set():
            number += 1
            settings.set(mqa_logits_max_chunk_bytes=number, prefill_dense_attn_kv_len_threshold=number)

    settings.set(mqa_logits_max_chunk_bytes=0, prefill_dense_attn_kv_len_threshold=0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(300):
            snapshot = settings.snapshot()
            if snapshot.mqa_logits_max_chunk_bytes != snapshot.prefill_dense_attn_kv_len_threshold:
                torn.append(snapshot)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(interval)
    assert not torn


def test_a_redeclared_field_keeps_its_environment_names(monkeypatch):
    """A subclass that only changes a default keeps the names; one that declares anew has its own."""

    class Mine(DSASettings):
        use_aiter: bool = True
        fuse_topk: bool = setting(False, env="MINE_FUSE")

    names = {name: it.variables for name, it in settings_of(Mine).items()}
    assert names["use_aiter"] == ("SGLANG_USE_AITER",)
    assert names["fuse_topk"] == ("MINE_FUSE",)
    assert names["kv_format"] == ("SGLANG_DSA_KV_FORMAT",)
    monkeypatch.setenv("SGLANG_USE_AITER", "0")
    assert (live(Mine).use_aiter, live(Mine).fuse_topk) == (False, False)


def test_annotated_declarations():
    """What Annotated says of a type and what setting() says of a field add up."""

    class Both(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="BOTH_")

        number: Annotated[int, Field(ge=0, json_schema_extra={"x-note": "kept"})] = setting(1, env="REAL", le=9)

    declared = settings_of(Both)["number"]
    assert (declared.variable, declared.allowed) == ("REAL", "an integer in decimal digits, 0 <= x <= 9")
    assert Both.model_json_schema()["properties"]["number"]["x-environment"] == "REAL"


def test_what_belongs_to_the_class_is_found_on_snapshots():
    """Methods and properties of a settings class are not settings, and the live object has none of them."""

    class Derived(LiveSettings):
        size: int = setting(2)

        @property
        def squared(self) -> int:
            return self.size**2

    assert live(Derived).snapshot().squared == 4
    assert not hasattr(live(Derived), "squared")
    assert not hasattr(settings, "model_dump")


def test_schemas_of_other_modes():
    """A field that a schema leaves out is left out of the annotations too."""

    class Hidden(LiveSettings):
        shown: int = setting(1)
        hidden: int = setting(1, exclude=True)

    properties = Hidden.model_json_schema(mode="serialization")["properties"]
    assert list(properties) == ["shown"]
    assert properties["shown"]["x-environment"] == "SHOWN"


def test_a_snapshot_reports_every_bad_value_at_once(monkeypatch):
    """One pass finds all; a bad text under an override is none of them."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    monkeypatch.setenv("SGLANG_USE_AITER", "")
    with pytest.raises(BadValues) as caught:
        settings.snapshot()
    assert [error.variable for error in caught.value.errors] == ["SGLANG_DSA_FUSE_TOPK", "SGLANG_USE_AITER"]
    with settings.override(fuse_topk=True, use_aiter=True):
        assert settings.snapshot().fuse_topk is True


def test_construction_reads_the_environment_by_the_same_grammar(monkeypatch):
    """`DSASettings()` sees canonical and deprecated names, and refuses what a live read refuses, in the same words."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", " OFF ")
    monkeypatch.setenv("SGLANG_USE_AITER", "t")
    with pytest.warns(DeprecatedName, match="SGLANG_NSA_FUSE_TOPK"):
        built = DSASettings()
    assert (built.fuse_topk, built.use_aiter, built.kv_format) == (False, True, "fp8")
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    with pytest.raises(BadValue) as constructed:
        DSASettings()
    with pytest.raises(BadValue) as read:
        settings.fuse_topk  # noqa: B018
    assert str(constructed.value) == str(read.value)
    monkeypatch.setenv("SGLANG_USE_AITER", "maybe")
    with pytest.raises(BadValues):
        DSASettings()


def test_constructor_arguments_win_and_go_by_field_names(monkeypatch):
    """Arguments are field names, judged by the field's grammar; a bad variable behind them does no harm."""
    monkeypatch.setenv("SGLANG_USE_AITER", "maybe")
    assert DSASettings(use_aiter="on").use_aiter is True
    with pytest.raises(ValidationError, match="is not a boolean"):
        DSASettings(use_aiter="maybe")
    with pytest.raises(ValidationError, match="Extra inputs"):
        DSASettings(use_aiter=True, nonsense=1)


def test_the_schema_goes_by_field_names():
    """Properties are fields; environment names, old names and effects are annotations."""
    schema = DSASettings.model_json_schema()
    assert set(schema["properties"]) == set(DSASettings.model_fields)
    fuse = schema["properties"]["fuse_topk"]
    assert fuse["x-environment"] == "SGLANG_DSA_FUSE_TOPK"
    assert fuse["x-deprecated-names"] == ["SGLANG_NSA_FUSE_TOPK"]
    assert fuse["x-effect"] == "call"
    assert fuse["description"].startswith("Run top-k")
    threshold = schema["properties"]["prefill_dense_attn_kv_len_threshold"]
    assert (threshold["minimum"], threshold["maximum"]) == (0, 2147483647)
    assert schema["additionalProperties"] is False


def test_every_setting_says_what_it_is_for():
    """No declaration without a description."""
    assert [name for name, declared in settings_of(DSASettings).items() if not declared.description] == []


def test_model_validators_judge_snapshots():
    """A rule over several fields holds for snapshots and construction; single reads do not depend on it."""

    class Pair(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="PAIR_")

        low: int = setting(0)
        high: int = setting(9)

        @model_validator(mode="after")
        def _ordered(self) -> Pair:
            if self.low > self.high:
                raise ValueError("low above high")
            return self

    pair = live(Pair)
    assert pair.snapshot().high == 9
    with pair.override(low=10):
        assert pair.low == 10
        with pytest.raises(ValidationError, match="low above high"):
            pair.snapshot()


def test_a_plain_pydantic_field_is_a_setting_too(monkeypatch):
    """A field declared without setting() has the prefix's name and its schema keys are kept."""

    class Plain(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="PLAIN_")

        number: int = 3
        share: float = Field(0.5, lt=1)
        noted: int = setting(1, json_schema_extra={"x-note": "kept"})
        nested: dict[str, list[int]] = setting({})

    monkeypatch.setenv("PLAIN_NUMBER", "4")
    monkeypatch.setenv("PLAIN_NESTED", '{"a": [1]}')
    plain = live(Plain)
    assert (plain.number, plain.share, plain.nested) == (4, 0.5, {"a": [1]})
    assert settings_of(Plain)["share"].allowed == "a number, x < 1"
    assert Plain.model_json_schema()["properties"]["noted"]["x-note"] == "kept"


def test_declarations_that_cannot_work_are_refused():
    """Aliases, missing defaults, bad defaults, shared names and names of methods are errors at declaration."""

    class Aliased(LiveSettings):
        a: int = Field(1, validation_alias="B")

    class Required(LiveSettings):
        a: int

    class BadDefault(LiveSettings):
        a: int = setting(5, le=3)

    class Shared(LiveSettings):
        a: int = setting(1, env="SHARED")
        b: int = setting(1, deprecated_names=[Renamed("SHARED", since="1", remove_in="2")])

    class Nameless(LiveSettings):
        a: int = setting(1, env="")

    class Dependent(LiveSettings):
        low: int = setting(1)
        high: int = setting(2)

        @field_validator("high")
        @classmethod
        def _above(cls, value: int, info: ValidationInfo) -> int:
            assert value > info.data["low"]
            return value

    class Filed(LiveSettings):
        model_config = SettingsConfigDict(env_file=".env")

    class Method(LiveSettings):
        reset: int = setting(1)

    with pytest.raises(DeclarationError, match="wanted Renamed"):
        setting(1, deprecated_names=["OLD"])
    for cls, words in [
        (Aliased, r"use setting\(..., env="),
        (Required, "needs a default"),
        (BadDefault, "default is not allowed: input should be less than or equal to 3"),
        (Shared, "'SHARED' is a name of both a and b"),
        (Nameless, "'' is a's name"),
        (Dependent, "the default is not allowed: 'low'"),
        (Method, "the live object has a method of that name"),
        (Filed, r"model_config\['env_file'\] has no effect"),
        (int, "wanted a class that is derived from LiveSettings"),
        (3, "wanted a class"),
    ]:
        with pytest.raises(DeclarationError, match=words):
            live(cls)


class Node(BaseModel):
    name: str
    kids: list[Node] = []


class Tree(LiveSettings):
    model_config = SettingsConfigDict(env_prefix="TREE_")

    root: Node | None = setting(None)


def test_recursive_types_have_parsers():
    """A field whose type refers to itself is parsed like any other."""
    tree = settings_of(Tree)["root"].parse('{"name": "a", "kids": [{"name": "b"}]}')
    assert tree == Node(name="a", kids=[Node(name="b")])
