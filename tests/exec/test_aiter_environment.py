"""What aiter and engines read from the environment themselves, where our settings say something else."""

from __future__ import annotations

import os

import pytest

from dsa_config import settings
from dsa_exec.core.aiter_environment import aiter_environment_differences

AOT = "AITER_ENABLE_AOT_GLUON_PA_MQA_LOGITS"


def sentences(env) -> list[str]:
    return [str(it) for it in aiter_environment_differences(env)]


def test_where_both_say_the_same_there_is_nothing_to_say(monkeypatch):
    """Nothing set, or both set to what everybody understands."""
    assert sentences({}) == []
    monkeypatch.setenv(AOT, "1")
    monkeypatch.setenv("SGLANG_USE_AITER", "true")
    assert sentences(os.environ) == []
    monkeypatch.setenv(AOT, "0")
    monkeypatch.setenv("SGLANG_USE_AITER", "False")
    assert sentences(os.environ) == []


@pytest.mark.parametrize("text", ["true", "yes", "on", "TRUE"])
def test_aiter_takes_nothing_but_1_for_on(monkeypatch, text):
    """Our words for on are more than aiter's."""
    monkeypatch.setenv(AOT, text)
    (told,) = sentences(os.environ)
    assert told == (
        f"aiter_enable_aot_gluon_pa_mqa_logits is on here (from environment variable {AOT}), and off for aiter, which "
        f"reads it when it is imported: {AOT} is {text!r} in the environment, where 1 is on"
    )


def test_a_value_that_is_not_in_the_environment(tmp_path):
    """set, overrides and files are seen here alone."""
    settings.set(aiter_enable_aot_gluon_pa_mqa_logits=True)
    (told,) = sentences({})
    assert told.startswith(f"aiter_enable_aot_gluon_pa_mqa_logits is on here (from settings.set at {__file__}:")
    assert told.endswith(f"{AOT} is not set in the environment, where 1 is on")
    settings.reset()
    path = tmp_path / "dsa.toml"
    path.write_text("use_aiter = true\n")
    settings.load(file=path)
    (told,) = sentences({})
    settings.load()
    assert told == (
        f"use_aiter is on here (from config file at {path}:1), and off for an engine that reads it itself, as SGLang "
        "does: SGLANG_USE_AITER is not set in the environment, where 1 or true is on"
    )


def test_a_stronger_layer_hides_what_others_see(monkeypatch):
    """An override turns it off here; who reads the variable has it on."""
    monkeypatch.setenv("SGLANG_USE_AITER", "True")
    with settings.override(use_aiter=False):
        (told,) = aiter_environment_differences(os.environ)
    assert (told.setting, told.value, told.text, told.takes) == ("use_aiter", False, "True", "1 or true")
    assert "use_aiter is off here (from settings.override at " in str(told)
    assert ", and on for an engine" in str(told)
