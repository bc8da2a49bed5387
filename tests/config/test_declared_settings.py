"""The settings that engines know by name: names, types, defaults and ranges exactly as published."""

from __future__ import annotations

import math

import pytest

from dsa_config import BadValue, DSASettings, settings
from dsa_config.declared import settings_of

PUBLISHED = [
    ("fuse_topk", "SGLANG_DSA_FUSE_TOPK", True, "SGLANG_NSA_FUSE_TOPK"),
    (
        "enable_mtp_precompute_metadata",
        "SGLANG_DSA_ENABLE_MTP_PRECOMPUTE_METADATA",
        True,
        "SGLANG_NSA_ENABLE_MTP_PRECOMPUTE_METADATA",
    ),
    (
        "prefill_dense_attn_kv_len_threshold",
        "SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD",
        2048,
        "SGLANG_NSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD",
    ),
    ("hip_disable_preshuffle", "SGLANG_DSA_HIP_DISABLE_PRESHUFFLE", False, "SGLANG_NSA_HIP_DISABLE_PRESHUFFLE"),
    ("mqa_logits_free_mem_fraction", "SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION", 0.2, None),
    ("use_fused_metadata_copy", "SGLANG_USE_FUSED_METADATA_COPY", True, None),
    ("use_aiter", "SGLANG_USE_AITER", False, None),
    ("aiter_enable_aot_gluon_pa_mqa_logits", "AITER_ENABLE_AOT_GLUON_PA_MQA_LOGITS", False, None),
    ("mem_fraction_static", "SGLANG_DSA_MEM_FRACTION_STATIC", None, None),
    ("mqa_logits_max_chunk_bytes", "SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES", 0, None),
    ("retry_out_of_memory", "SGLANG_DSA_RETRY_OUT_OF_MEMORY", True, None),
    ("tp_index_rows", "SGLANG_DSA_TP_INDEX_ROWS", "auto", None),
    ("tp_index_rows_logits_threshold", "SGLANG_DSA_TP_INDEX_ROWS_LOGITS_THRESHOLD", 2**27, None),
    ("index_k_format", "SGLANG_DSA_INDEX_K_FORMAT", "fp8", None),
    ("kv_format", "SGLANG_DSA_KV_FORMAT", "fp8", None),
    ("prefill_attention", "SGLANG_DSA_PREFILL_ATTENTION", "auto", None),
    ("decode_attention", "SGLANG_DSA_DECODE_ATTENTION", "auto", None),
]

OPS = (
    "index_quant index_store index_gather mqa_logits paged_mqa_logits topk index_select kv_store kv_gather "
    "dense_mla_prefill sparse_mla_prefill sparse_mla_decode attention_merge step_metadata"
).split()


@pytest.mark.parametrize(("field", "variable", "default", "old"), PUBLISHED)
def test_names_and_defaults(field, variable, default, old):
    """Each setting has its published environment name, default and deprecated name."""
    declared = settings_of(DSASettings)[field]
    assert declared.variable == variable
    assert [renamed.name for renamed in declared.deprecated] == ([old] if old else [])
    assert getattr(settings, field) == default
    assert type(getattr(settings, field)) is type(default)


@pytest.mark.parametrize("op", OPS)
def test_every_op_has_a_backend_setting(op):
    """Each op's backend is chosen by <op>_backend, SGLANG_DSA_<OP>_BACKEND, auto by default."""
    declared = settings_of(DSASettings)[f"{op}_backend"]
    assert declared.variable == f"SGLANG_DSA_{op.upper()}_BACKEND"
    assert getattr(settings, f"{op}_backend") == "auto"


@pytest.mark.parametrize(
    ("variable", "good", "bad"),
    [
        ("SGLANG_DSA_PREFILL_DENSE_ATTN_KV_LEN_THRESHOLD", ["0", "2147483647", "+5"], ["-1", "2147483648", "", "2.0"]),
        (
            "SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION",
            ["1", "1e-9", ".5", " 0.25 "],
            ["nan", "inf", "-inf", "0", "-1", "1.5", "abc", "", "1_0", "0x1p-2", "0,5"],
        ),
        ("SGLANG_DSA_MEM_FRACTION_STATIC", ["0", "1", "none", "0.9"], ["-0.1", "1.1", "nan", "inf", ""]),
        ("SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES", ["0", "268435456"], ["-1", "1e9", "1_000", "0x10"]),
        ("SGLANG_DSA_TP_INDEX_ROWS", ["auto", " replicated", "split"], ["", "1", "Split", "round_robin"]),
        ("SGLANG_DSA_TP_INDEX_ROWS_LOGITS_THRESHOLD", ["0", "9223372036854775807"], ["-1", "1e9", "", "auto"]),
        ("SGLANG_DSA_KV_FORMAT", ["fp8", " model "], ["bf16", "", "FP8"]),
        (
            "SGLANG_DSA_PREFILL_ATTENTION",
            ["auto", "dense", " sparse_bf16", "fp8_kv"],
            ["", "Dense", "flashmla", "fa3", "tilelang", "flashmla_auto"],
        ),
        ("SGLANG_DSA_DECODE_ATTENTION", ["auto", "sparse_bf16", "fp8_kv"], ["", "dense", "flashmla_auto"]),
    ],
)
def test_ranges(variable, good, bad, monkeypatch):
    """Texts within the published range are values, all others are errors that name the variable and the text."""
    for text in good:
        monkeypatch.setenv(variable, text)
        assert settings.explain(variable).source == "environment"
    for text in bad:
        monkeypatch.setenv(variable, text)
        with pytest.raises(BadValue, match=f"^{variable}={text!r} ") as caught:
            settings.explain(variable)
        assert (caught.value.variable, caught.value.given) == (variable, text)


@pytest.mark.parametrize("name", ["prefill_attention", "decode_attention"])
def test_engines_names_for_ways_of_attending(name, monkeypatch):
    """flashmla_sparse and flashmla_kv are taken from everywhere; flashmla_auto was removed, and the error says so."""
    for engines, ours in (("flashmla_sparse", "sparse_bf16"), (" flashmla_kv ", "fp8_kv")):
        monkeypatch.setenv(f"SGLANG_DSA_{name.upper()}", engines)
        assert getattr(settings, name) == getattr(DSASettings(), name) == ours
        with settings.override(**{name: "auto"}), settings.override(**{name: engines}):
            assert getattr(settings, name) == ours
    monkeypatch.setenv(f"SGLANG_DSA_{name.upper()}", "flashmla_auto")
    with pytest.raises(
        BadValue, match=f"'flashmla_auto' .*: was removed, use auto, which .*; {name} takes one of auto,"
    ):
        getattr(settings, name)


def test_a_fraction_is_a_finite_float(monkeypatch):
    """The fraction reads as a float whatever notation it is given in."""
    monkeypatch.setenv("SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION", "1")
    assert type(settings.mqa_logits_free_mem_fraction) is float
    with pytest.raises(BadValue, match="finite"):
        settings.set(mqa_logits_free_mem_fraction=math.nan)


def test_launch_parameters_are_checked_in_words():
    """Launch parameters are any number of op.backend.field=number, and the first that is not is named."""
    good = "topk.gluon.blocks=8, mqa_logits.triton.warps=4"
    with settings.override(kernel_launch=good):
        assert settings.kernel_launch == good
    with (
        pytest.raises(BadValue, match=r"'topk\.blocks=8' is not op\.backend\.field=number"),
        settings.override(kernel_launch="topk.gluon.blocks=8 topk.blocks=8"),
    ):
        pass
