"""The JSON Schema of the config file agrees with what the reader of the file takes."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from pydantic_settings import SettingsConfigDict

from dsa_config import DSASettings, LiveSettings, Merged, Renamed, SettingError, inverted, setting
from dsa_config.loading import Sources, read_sources
from dsa_config.policy import policy_of
from dsa_config.tools.export_schema import settings_schema


def is_valid(cls, document):
    schema = settings_schema(cls)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema).is_valid(document)


def is_read(cls, document, folder):
    """Whether the reader of config files takes it."""
    path = folder / "x.json"
    path.write_text(json.dumps(document))
    (folder / "base.json").write_text("{}")
    sources = Sources(path, None, None, None, (), None, None, fatal_deprecations=False, fatal_conflicts=False)
    try:
        read_sources(cls, sources, policy_of(cls))
    except SettingError:
        return False
    return True


GOOD = [
    {},
    {"$schema": "./settings.schema.json", "fuse_topk": False, "mqa_logits_free_mem_fraction": 1},
    {"include": "base.json", "mem_fraction_static": None},
    {"include": ["base.json"], "mem_fraction_static": "none", "kv_format": "model"},
    {"profile": "a", "profiles": {"a": {"topk_backend": "torch"}, "b": {}}},
    {"prefill_attention": "flashmla_sparse", "decode_attention": "fp8_kv"},
]
BAD = [
    {"fuse_tpok": True},
    {"fuse_topk": "maybe"},
    {"fuse_topk": 2},
    {"prefill_dense_attn_kv_len_threshold": -1},
    {"mqa_logits_free_mem_fraction": 0},
    {"mem_fraction_static": "some"},
    {"kv_format": "fp9"},
    {"topk_backend": "warp"},
    {"prefill_attention": "flashmla_auto"},
    {"decode_attention": "dense"},
    {"include": [1]},
    {"include": ""},
    {"profile": 1},
    {"profiles": []},
    {"profiles": {"a": 1}},
    {"profiles": {"a": {"nonsense": 1}}},
    {"profiles": {"a": {"fuse_topk": "maybe"}}},
    {"profiles": {"a": {"include": "base.json"}}},
    {"SGLANG_DSA_FUSE_TOPK": True},
]


@pytest.mark.parametrize("document", GOOD, ids=str)
def test_what_the_reader_takes_is_valid(document, tmp_path):
    """Own keys, profiles, types, bounds and choices as the reader has them."""
    assert is_valid(DSASettings, document)
    assert is_read(DSASettings, document, tmp_path)


@pytest.mark.parametrize("document", BAD, ids=str)
def test_what_the_reader_refuses_is_not(document, tmp_path):
    """Unknown keys, wrong values, wrong shapes, and environment names of today."""
    assert not is_valid(DSASettings, document)
    assert not is_read(DSASettings, document, tmp_path)


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
def test_deprecated_keys(tmp_path):
    """Old names are keys until they are refused or removed; where the meaning changed, of their own type."""

    class Old(LiveSettings):
        model_config = SettingsConfigDict(env_prefix="OLDISH_")
        project_version = "1.5"
        wide: int = setting(1, ge=0, deprecated_names=[Renamed("WIDTH", "1.0", "2.0"), Renamed("W", "0.1", "1.0")])
        quiet: bool = setting(True, introduced="1.1", deprecated_names=[inverted("LOUD", since="1.0", remove_in="2.0")])
        sum: int = setting(0, deprecated_names=[Merged(("A", "B"), "1.0", "2.0", (int, int), lambda a, b: a + b)])
        gone: int = setting(0, deprecated_names=[Renamed("GO", "1.0", "2.0", error_in="1.5")])

    schema = settings_schema(Old)
    assert schema["properties"]["WIDTH"]["deprecated"] is True
    assert "use wide" in schema["properties"]["WIDTH"]["description"]
    assert schema["properties"]["quiet"]["x-introduced"] == "1.1"
    for document in ({"WIDTH": 2, "LOUD": True, "A": 1, "B": 2}, {"profiles": {"x": {"LOUD": False}}}):
        assert is_valid(Old, document)
        assert is_read(Old, document, tmp_path)
    for document in ({"WIDTH": -1}, {"LOUD": 7}, {"GO": 1}):
        assert not is_valid(Old, document)
        assert not is_read(Old, document, tmp_path)
    assert not is_valid(Old, {"W": 1})


def test_backends_are_those_that_there_are():
    """The choices of a backend are looked up; descriptions, defaults and names are told."""
    field = settings_schema(DSASettings)["properties"]["topk_backend"]
    assert field["enum"] == ["auto", "aiter", "gluon", "torch", "triton"]
    assert field["default"] == "auto"
    assert field["x-environment"] == "SGLANG_DSA_TOPK_BACKEND"
    assert field["description"] == "Which kernel picks the best-scored positions."
