"""Reads inside a compiled region: right after every kind of change, with one graph for a value."""

from __future__ import annotations

import json
import os
import warnings

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._dynamo.utils import counters

from dsa_config import settings
from dsa_config.lifecycle import forget_warnings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _no_graphs():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    settings.load()


def _compiled():
    """A compiled function of a setting, and the counter of its graphs."""
    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def double_if_fused(x):
        return x * 2 if settings.fuse_topk else x

    return double_if_fused, counter


ONE = torch.ones(1)


def _environment(monkeypatch):
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "1")
    yield True
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    yield False
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "1")
    yield True


def _unset_then_set(monkeypatch):
    yield True
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    yield False
    monkeypatch.delenv("SGLANG_DSA_FUSE_TOPK")
    yield True
    os.environ["SGLANG_DSA_FUSE_TOPK"] = "off"
    yield False
    monkeypatch.delenv("SGLANG_DSA_FUSE_TOPK")


def _set_and_reset(_):
    settings.set(fuse_topk=False)
    yield False
    settings.reset()
    yield True
    settings.set(fuse_topk=False)
    yield False


def _scoped_override(_):
    for value in (False, True, False):
        with settings.override(fuse_topk=value):
            yield value
            with settings.override(fuse_topk=not value):
                yield not value
            yield value
        yield True


def _deprecated_name(monkeypatch):
    for text, value in (("0", False), ("1", True), ("0", False)):
        monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", text)
        yield value
    monkeypatch.delenv("SGLANG_NSA_FUSE_TOPK")
    yield True


def _config_file(monkeypatch, tmp_path):
    for text, value in (("fuse_topk = false", False), ("fuse_topk = true", True), ("fuse_topk = 0", False)):
        (tmp_path / "a.toml").write_text(text)
        settings.load(file=tmp_path / "a.toml")
        yield value


def _feature_flag(monkeypatch, tmp_path):
    rule = {"if": [{"==": [{"var": "layer"}, 1]}, "on", "off"]}
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": rule}
    (tmp_path / "flags.json").write_text(json.dumps({"flags": {"fuse_topk": flag}}))
    settings.load(flags=tmp_path / "flags.json")
    yield False
    for layer in (1, 2, 1):
        with settings.flag_context(layer=layer):
            yield layer == 1
        yield False


def _recording(_):
    with settings.record_reads():
        yield True
    yield True


CHANGES = [_environment, _unset_then_set, _set_and_reset, _scoped_override, _deprecated_name, _recording]


@pytest.mark.filterwarnings("ignore::dsa_config.DeprecatedName")
@pytest.mark.parametrize("changes", CHANGES, ids=lambda it: it.__name__.strip("_"))
def test_a_compiled_read_follows(monkeypatch, changes):
    """fullgraph=True: every change is seen by the next call, and there is at most one graph for a value."""
    function, counter = _compiled()
    for number, value in enumerate(changes(monkeypatch)):
        assert function(ONE).item() == (2 if value else 1), f"step {number}"
    assert counter.frame_count <= 2
    assert not counters["graph_break"]


@pytest.mark.parametrize("changes", [_config_file, _feature_flag], ids=lambda it: it.__name__.strip("_"))
def test_a_compiled_read_follows_files(monkeypatch, tmp_path, changes):
    """Loaded files and feature flags in a scope's context, alike."""
    function, counter = _compiled()
    for number, value in enumerate(changes(monkeypatch, tmp_path)):
        assert function(ONE).item() == (2 if value else 1), f"step {number}"
    assert counter.frame_count <= 2


def test_a_deprecated_name_warns_once_although_the_first_read_is_compiled(monkeypatch):
    """The read that a guard repeats is silent."""
    forget_warnings()
    monkeypatch.setenv("SGLANG_NSA_FUSE_TOPK", "0")
    function, _ = _compiled()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(5):
            assert function(ONE).item() == 1
    assert len([it for it in caught if "SGLANG_NSA_FUSE_TOPK is deprecated" in str(it.message)]) == 1


def test_a_choice_has_one_graph_for_a_value():
    """Going back and forth between the values of a Literal compiles nothing anew."""
    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def by_format(x):
        return x + (1 if settings.kv_format == "fp8" else 2)

    for value, result in [("fp8", 2), ("model", 3)] * 3:
        with settings.override(kv_format=value):
            assert by_format(ONE).item() == result
    assert counter.frame_count == 2


def test_an_integer_compiles_for_each_value_and_then_fails_loudly():
    """Nothing is ever stale: past the limit of recompilations dynamo raises. Such a value is passed as an argument."""
    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def scaled(x):
        return x * settings.prefill_dense_attn_kv_len_threshold

    limit = torch._dynamo.config.recompile_limit
    for value in range(2, 2 + limit):
        with settings.override(prefill_dense_attn_kv_len_threshold=value):
            assert scaled(ONE).item() == value
    assert counter.frame_count == limit
    with (
        settings.override(prefill_dense_attn_kv_len_threshold=999),
        pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit),
    ):
        scaled(ONE)
    assert settings.prefill_dense_attn_kv_len_threshold == 2048


def test_a_sealed_read_follows(monkeypatch):
    """Plain attributes are guarded too."""
    hot = settings.sealed()
    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def shifted(x):
        return x + 1 if hot.use_fused_metadata_copy else x

    seen = [shifted(ONE).item()]
    monkeypatch.setenv("SGLANG_USE_FUSED_METADATA_COPY", "0")
    seen.append(shifted(ONE).item())
    settings.set(use_fused_metadata_copy=True)
    seen.append(shifted(ONE).item())
    settings.reset()
    seen.append(shifted(ONE).item())
    assert seen == [2, 1, 2, 1]
    assert counter.frame_count == 2
