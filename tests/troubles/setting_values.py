"""Values and names of settings that are refused or reported."""

from __future__ import annotations

from dsa_config import settings
from dsa_config.compat.sglang import envs
from troubles import produces


@produces("BadValue")
def no_boolean(monkeypatch):
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    return settings.fuse_topk


@produces("BadValue")
def out_of_range(settings_override):
    settings_override(mqa_logits_free_mem_fraction=1.5)


@produces("BadValue")
def no_such_backend(monkeypatch):
    monkeypatch.setenv("SGLANG_DSA_TOPK_BACKEND", "cuda")
    return settings.topk_backend


@produces("BadValue")
def a_removed_word(monkeypatch):
    monkeypatch.setenv("SGLANG_DSA_PREFILL_ATTENTION", "flashmla_auto")
    return settings.prefill_attention


@produces("BadValues")
def two_bad_values(monkeypatch):
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "maybe")
    monkeypatch.setenv("SGLANG_USE_AITER", "2")
    return settings.snapshot()


@produces("UnknownSetting")
def a_slip(settings_override):
    settings_override(fuse_topc=False)


@produces("UnknownSetting")
def an_environment_name_as_a_keyword(settings_override):
    settings_override(SGLANG_DSA_FUSE_TOPK=False)


@produces("AssignmentRefused")
def assignment():
    settings.fuse_topk = False


@produces("AssignmentRefused")
def patching(monkeypatch):
    monkeypatch.setattr(settings, "fuse_topk", False)


@produces("DeprecatedName")
def an_old_name(monkeypatch):
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    return settings.fuse_topk


@produces("DeprecatedName")
def two_names_with_different_text(monkeypatch):
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "1")
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    monkeypatch.setattr("dsa_config.lifecycle._said", {"SGLANG_DSA_FUSE_TOPK deprecated SGLANG_NSA_FUSE_TOPK"})
    return settings.fuse_topk


@produces("DeprecatedNameRefused")
def an_old_name_where_that_is_fatal(monkeypatch, settings_load):
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    settings_load(fatal_deprecations=True)
    return settings.fuse_topk


@produces("ConflictRefused")
def a_conflict_where_that_is_fatal(monkeypatch, settings_load):
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "1")
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    settings_load(fatal_conflicts=True)
    return settings.fuse_topk


@produces("NotAValue")
def the_get_was_forgotten():
    return bool(envs.SGLANG_DSA_FUSE_TOPK)


@produces("EnvAssignmentRefused")
def an_attribute_of_envs_is_assigned():
    envs.SGLANG_DSA_FUSE_TOPK = False
