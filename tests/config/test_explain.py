"""Why a setting has its value."""

from __future__ import annotations

import inspect

import pytest

from dsa_config import BadValue, UnknownSetting, settings


def test_every_layer_is_listed_strongest_first(monkeypatch):
    """The winner and each loser appear with value and origin; callers are named by file and line."""
    monkeypatch.setenv("SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES", " 2 ")
    settings.set(mqa_logits_max_chunk_bytes=3)
    set_line = inspect.currentframe().f_lineno - 1
    with settings.override(mqa_logits_max_chunk_bytes="4"):
        override_line = inspect.currentframe().f_lineno - 1
        explanation = settings.explain("mqa_logits_max_chunk_bytes")
    assert (explanation.name, explanation.value, explanation.source) == ("mqa_logits_max_chunk_bytes", 4, "override")
    assert explanation.origin == f"settings.override at {__file__}:{override_line}"
    assert [(layer.source, layer.given, layer.value) for layer in explanation.layers] == [
        ("override", "4", 4),
        ("set", 3, 3),
        ("environment", " 2 ", 2),
        ("default", 0, 0),
    ]
    assert explanation.layers[1].origin == f"settings.set at {__file__}:{set_line}"
    assert explanation.layers[2].origin == "environment variable SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES"
    assert settings.explain("mqa_logits_max_chunk_bytes").source == "set"


@pytest.mark.parametrize("name", ["fuse_topk", "SGLANG_DSA_FUSE_TOPK", "SGLANG_NSA_FUSE_TOPK"])
def test_any_name_of_the_setting_will_do(name, monkeypatch):
    """The field, the environment name and the deprecated name give the same answer."""
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    explanation = settings.explain(name)
    assert (explanation.name, explanation.value, explanation.source) == ("fuse_topk", False, "environment")
    assert "SGLANG_NSA_FUSE_TOPK" in explanation.origin
    assert explanation.conflict is None


def test_an_unknown_name_is_told_the_nearest(monkeypatch):
    """Fields and environment names both count as near."""
    with pytest.raises(UnknownSetting, match="did you mean SGLANG_DSA_KV_FORMAT"):
        settings.explain("SGLANG_DSA_KV_FROMAT")


def test_each_name_that_is_set_has_its_word(monkeypatch):
    """A deprecated name that loses to the canonical one is a losing layer of its own."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "1")
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "maybe")
    explanation = settings.explain("fuse_topk")
    assert [(layer.source, layer.given) for layer in explanation.layers] == [
        ("environment", "1"),
        ("environment", "maybe"),
        ("default", True),
    ]
    assert str(explanation).splitlines() == [
        "fuse_topk = True, from environment variable SGLANG_DSA_FUSE_TOPK",
        "  wins  environment: '1' from environment variable SGLANG_DSA_FUSE_TOPK",
        "  loses environment: 'maybe' from environment variable SGLANG_NSA_FUSE_TOPK (which is not a boolean)",
        "  loses default: True from the declaration",
        *(f"  warning: {warning}" for warning in explanation.warnings),
    ]


def test_a_bad_loser_is_reported_and_a_bad_winner_is_raised(monkeypatch):
    """A losing layer with a bad text is listed with its error; a winning one is the error."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    with pytest.raises(BadValue):
        settings.explain("fuse_topk")
    with settings.override(fuse_topk=False):
        environment = settings.explain("fuse_topk").layers[1]
    assert (environment.given, environment.value) == ("maybe", None)
    assert "is not a boolean" in environment.error
