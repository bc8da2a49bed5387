"""How a batch attends: one pure decision, with the reason in words, from settings, hardware, cache and lengths."""

from __future__ import annotations

import dataclasses
import re

import pytest

from dsa_config import settings
from dsa_exec.core.errors import UnsupportedPath
from dsa_exec.core.hardware import Capabilities
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.runtime.attention_path import AttentionPath, AttentionSettings, attention_path, validate_paths

FP8, MODEL = MlaLayout(), MlaLayout("model")
HOPPER, BLACKWELL, AMPERE, MI300, CPU = (
    Capabilities(kind, arch, "2.11.0", "3.6.0", is_hip=arch.startswith("gfx"))
    for kind, arch in (("cuda", "sm90"), ("cuda", "sm100"), ("cuda", "sm80"), ("cuda", "gfx942"), ("cpu", "cpu"))
)
OTHER_PHASES = ("decode", "target_verify", "draft_extend")
AUTO = AttentionSettings("auto", "auto", 2048)


def path(phase="prefill", layout=FP8, hw=HOPPER, chosen=AUTO, *, topk=2048, longest: int | None = 100_000):
    return attention_path(phase, layout, hw, chosen, index_topk=topk, longest_tokens=longest)


def named(phase: str, way: str, threshold: int = 2048) -> AttentionSettings:
    return AttentionSettings(*((way, "auto") if phase == "prefill" else ("auto", way)), threshold)


@pytest.mark.parametrize(
    ("layout", "hw", "way", "why"),
    [
        (FP8, HOPPER, "fp8_kv", "auto: on sm90 prefill reads the FP8 cache as it is; not dense: the longest request"),
        (FP8, BLACKWELL, "sparse_bf16", "auto: on sm100 prefill gathers the FP8 cache in 16 bits; not dense"),
        (FP8, AMPERE, "sparse_bf16", "auto: on sm80 prefill"),
        (FP8, MI300, "sparse_bf16", "auto: on gfx942 prefill"),
        (FP8, CPU, "sparse_bf16", "auto: on cpu prefill"),
        (MODEL, HOPPER, "sparse_bf16", "auto: the MLA cache has format model; not dense"),
        (MODEL, CPU, "sparse_bf16", "auto: the MLA cache has format model"),
    ],
)
def test_a_long_prefill_by_itself(layout, hw, way, why):
    """Hopper reads an FP8 cache as it is, other hardware gathers it; a cache of the model's dtype needs neither."""
    found = path(layout=layout, hw=hw)
    assert (found.way, found.phase, found.format) == (way, "prefill", layout.format)
    assert found.why.startswith(why)
    assert found.selects


@pytest.mark.parametrize("phase", OTHER_PHASES)
@pytest.mark.parametrize("hw", [HOPPER, BLACKWELL, MI300, CPU])
@pytest.mark.parametrize("longest", [1, 100_000, None])
def test_decode_and_speculative_phases_by_themselves(phase, hw, longest):
    """The FP8 cache as it is, everywhere, and never densely however short the requests are."""
    assert path(phase, FP8, hw, longest=longest).way == "fp8_kv"
    assert path(phase, MODEL, hw, longest=longest).way == "sparse_bf16"
    assert path(phase, hw=hw).why == f"auto: {phase} reads the FP8 cache as it is"


@pytest.mark.parametrize("hw", [HOPPER, CPU])
@pytest.mark.parametrize("layout", [FP8, MODEL])
@pytest.mark.parametrize(
    ("threshold", "topk", "longest", "dense", "words"),
    [
        (2048, 2048, 2048, True, "auto: all of the longest request's 2048 tokens are attended to"),
        (2048, 2048, 2049, False, "the longest request has 2049 tokens, more than the 2048 that the model selects"),
        (100, 2048, 100, True, "all of the longest request's 100 tokens"),
        (100, 2048, 101, False, r"has 101 tokens, more than 100 \(prefill_dense_attn_kv_len_threshold\)"),
        (2048, 512, 512, True, "512 tokens"),
        (0, 2048, 1, False, "not dense: prefill_dense_attn_kv_len_threshold=0 turns dense attention off"),
        (2048, 2048, None, False, "not dense: the longest request's length is not known on the host"),
    ],
)
def test_a_short_prefill_is_dense(layout, hw, threshold, topk, longest, dense, words):
    """While the longest request is within the threshold and what the model selects, whatever the cache and device."""
    found = path("prefill", layout, hw, AttentionSettings("auto", "auto", threshold), topk=topk, longest=longest)
    assert (found.way == "dense") is dense
    assert found.selects is not dense
    assert re.search(words, found.why)


def test_T37_a_model_that_selects_less_than_the_threshold_is_never_dense_beyond_that():
    """T37: with index_topk 512 and the threshold at 2048, 513 to 2048 tokens are another model if attended to all."""
    for longest in (513, 1000, 2048):
        assert path(topk=512, longest=longest).way != "dense"
        with pytest.raises(UnsupportedPath, match=f"has {longest} tokens, more than the 512 that the model selects"):
            path(chosen=named("prefill", "dense"), topk=512, longest=longest)
    assert path(topk=512, longest=512).way == "dense"


@pytest.mark.parametrize("phase", ["prefill", *OTHER_PHASES])
@pytest.mark.parametrize("hw", [HOPPER, BLACKWELL, CPU])
def test_a_named_way_is_taken(phase, hw):
    """Whatever auto would do: each phase by its own setting, the speculative ones by decode's."""
    setting = "prefill_attention" if phase == "prefill" else "decode_attention"
    for way, layout in (("sparse_bf16", FP8), ("sparse_bf16", MODEL), ("fp8_kv", FP8)):
        found = path(phase, layout, hw, named(phase, way), longest=5)
        assert (found.way, found.why) == (way, f"{setting} names it")
    other = AttentionSettings("fp8_kv", "sparse_bf16", 0)
    assert path(phase, FP8, hw, other).way == ("fp8_kv" if phase == "prefill" else "sparse_bf16")


@pytest.mark.parametrize(
    ("threshold", "longest", "words"),
    [
        (2048, 2049, "prefill_attention=dense: the longest request has 2049 tokens, more than the 2048"),
        (0, 5, "prefill_attention=dense: prefill_dense_attn_kv_len_threshold=0 turns dense attention off"),
        (2048, None, "prefill_attention=dense: the longest request's length is not known on the host"),
    ],
)
def test_dense_that_is_named_never_falls_back(threshold, longest, words):
    """Beyond its lengths it is an error in a sentence; within them it is taken."""
    with pytest.raises(UnsupportedPath, match=words) as caught:
        path(chosen=named("prefill", "dense", threshold), longest=longest)
    ((setting, choice, sentence),) = caught.value.refusals
    assert (setting, choice) == ("prefill_attention", "dense")
    assert str(caught.value) == f"{setting}={choice}: {sentence}"
    assert path(chosen=named("prefill", "dense"), longest=7).way == "dense"


@pytest.mark.parametrize("phase", ["prefill", *OTHER_PHASES])
def test_t31_nothing_is_quantised_on_the_way(phase):
    """T31: an FP8 way over a cache of the model's dtype is refused in words, where the ancestor quantises all of it."""
    with pytest.raises(UnsupportedPath, match="attention=fp8_kv: the MLA cache has format model: .*kv_format=fp8"):
        path(phase, MODEL, HOPPER, named(phase, "fp8_kv"), longest=5)


def test_t32_settings_and_cache_are_checked_together_at_start():
    """T32: every mixture of ways and formats is either one that each batch can take, or refused once, in words."""
    for prefill in ("auto", "dense", "sparse_bf16", "fp8_kv"):
        for decode in ("auto", "sparse_bf16", "fp8_kv"):
            for layout in (FP8, MODEL):
                chosen = AttentionSettings(prefill, decode, 2048)
                refused = [it for it in (prefill, decode) if it == "fp8_kv" and layout is MODEL]
                if refused:
                    with pytest.raises(UnsupportedPath) as caught:
                        validate_paths(layout, chosen)
                    assert len(caught.value.refusals) == len(refused)
                    continue
                validate_paths(layout, chosen)
                for phase in ("prefill", *OTHER_PHASES):
                    assert path(phase, layout, chosen=chosen, longest=1).format == layout.format


@pytest.mark.parametrize("phase", OTHER_PHASES)
def test_no_setting_makes_decode_dense(phase):
    """The setting has no such choice; a plan that was made by hand is refused in words."""
    with pytest.raises(UnsupportedPath, match=f"decode_attention=dense: {phase} attends to selected tokens"):
        path(phase, chosen=AttentionSettings("auto", "dense", 2048), longest=5)


def test_dense_that_is_named_and_turned_off_is_told_at_start():
    """No batch could be attended to; a length that is too long for it is told with that batch."""
    with pytest.raises(UnsupportedPath, match="prefill_attention=dense: prefill_dense_attn_kv_len_threshold=0"):
        validate_paths(FP8, named("prefill", "dense", 0))
    with pytest.raises(UnsupportedPath, match="prefill_attention=fp8_kv: .*; decode_attention=fp8_kv: "):
        validate_paths(MODEL, AttentionSettings("fp8_kv", "fp8_kv", 0))


def test_settings_are_read_when_they_are_asked_for():
    """An override counts for the next batch, under engines' names too, and not for one that is decided."""
    before = AttentionSettings.now()
    assert before == AUTO
    with settings.override(
        prefill_attention="flashmla_sparse", decode_attention="flashmla_kv", prefill_dense_attn_kv_len_threshold=3
    ):
        assert AttentionSettings.now() == AttentionSettings("sparse_bf16", "fp8_kv", 3)
    assert before == AUTO


def test_t33_a_decision_is_frozen_and_nobody_remembers_it():
    """T33: what one batch decides is not seen by another, in whatever order, and cannot be changed afterwards."""
    lengths = [10, 100_000, 2048, 2049, 1]
    alone = [path(longest=longest) for longest in lengths]
    decode = path("decode")
    again = [path(longest=longest) for longest in reversed(lengths)]
    assert alone == again[::-1]
    assert [it.way for it in alone] == ["dense", "fp8_kv", "dense", "fp8_kv", "dense"]
    assert decode.way == "fp8_kv"
    with pytest.raises(dataclasses.FrozenInstanceError):
        alone[0].way = "fp8_kv"
    assert isinstance(alone[0], AttentionPath)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (("dense", "decode", "fp8"), "way=dense: decode attends to selected tokens"),
        (("dense", "target_verify", "model"), "way=dense: target_verify attends"),
        (("fp8_kv", "prefill", "model"), "way=fp8_kv: the MLA cache has format model"),
    ],
)
def test_a_path_that_is_none_cannot_be_made_by_hand(made, words):
    """Whoever writes one down for a test or an engine is told at once, not by an op later."""
    with pytest.raises(UnsupportedPath, match=words):
        AttentionPath(*made, "by hand")
