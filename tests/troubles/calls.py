"""Calls that no backend takes, and arguments that an op does not take."""

from __future__ import annotations

import logging

import torch

from dsa_exec import IndexKCache, attach_index_k_cache, kv_store, mqa_logits, topk
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.vendors import find_library
from dsa_exec.dispatch.select import forget_decisions
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.runtime.attention_path import AttentionSettings, attention_path
from troubles import produces

CPU = Capabilities("cpu", "cpu", "2.13.0", "3.9.0")
LENGTHS = torch.tensor([100, 90], dtype=torch.int32)


@produces("UnsupportedCall")
def a_backend_for_other_hardware(settings_override):
    settings_override(topk_backend="gluon")
    topk(torch.randn(2, 100), LENGTHS, 8)


@produces("UnsupportedCall")
def a_library_that_is_missing(settings_override, monkeypatch):
    settings_override(mqa_logits_backend="deep_gemm")
    with assumed(without_deep_gemm("sm90", monkeypatch)):
        index_logits()


@produces("UnsupportedPath")
def fp8_over_a_cache_that_is_not(settings_override):
    settings_override(decode_attention="fp8_kv")
    attention_path("decode", MlaLayout("model"), CPU, AttentionSettings.now(), index_topk=2048)


@produces("UnsupportedPath")
def dense_with_a_long_request(settings_override):
    settings_override(prefill_attention="dense")
    attention_path("prefill", MlaLayout(), CPU, AttentionSettings.now(), index_topk=2048, longest_tokens=4096)


@produces("falls back to")
def auto_without_a_vendor(caplog, monkeypatch):
    monkeypatch.setattr("dsa_exec.dispatch.select._said", set())
    forget_decisions()
    with assumed(without_deep_gemm("sm100", monkeypatch)), caplog.at_level(logging.WARNING, "dsa_exec.dispatch"):
        index_logits()
    return caplog.messages[0]


@produces("LaunchError")
def a_launch_parameter_that_is_not_there(settings_override):
    settings_override(kernel_launch="topk.triton.blocks=8", topk_backend="triton")
    topk(torch.randn(2, 100), LENGTHS, 8)


@produces("ShapeError")
def lengths_of_other_rows():
    topk(torch.randn(2, 100), LENGTHS[:1], 8)


@produces("DtypeError")
def lengths_of_another_dtype():
    topk(torch.randn(2, 100), LENGTHS.long(), 8)


@produces("StrideError")
def columns_apart():
    topk(torch.randn(100, 2).T, LENGTHS, 8)


@produces("DeviceError")
def another_device():
    topk(torch.randn(2, 100), LENGTHS.to("meta"), 8)


@produces("RangeError")
def too_great_a_k():
    topk(torch.randn(2, 100), LENGTHS, 8192)


@produces("RangeError")
def a_slot_beyond_the_cache():
    cache = MlaCache.allocate(64, device="cpu", model_dtype=torch.bfloat16)
    kv_store(cache, torch.randn(1, 512), torch.randn(1, 64), torch.tensor([64]))


@produces("LayoutError")
def an_index_key_of_another_width():
    IndexKCache.allocate(64, device="cpu", model_dtype=torch.bfloat16, head_dim=64)


@produces("LayoutError")
def a_latent_of_another_width():
    MlaCache.allocate(64, device="cpu", model_dtype=torch.bfloat16, latent_dim=96)


@produces("LayoutError")
def a_worker_that_disagrees(settings_override):
    made = IndexKCache.allocate(128, device="cpu", model_dtype=torch.bfloat16, hadamard=True)
    attach_index_k_cache(made.data, made.layout.spec, model_dtype=torch.bfloat16)


def without_deep_gemm(arch, monkeypatch):
    """Hardware whose deep_gemm is looked for in vain."""
    with monkeypatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        missing = find_library.__wrapped__("deep_gemm")
    return Capabilities("cuda", arch, "2.11.0", "3.6.0", vendors={"deep_gemm": missing})


def index_logits():
    """Four rows over eight keys."""
    q, keys = torch.randn(4, 64, 128).to(E4M3), torch.randn(8, 128).to(E4M3)
    ends = torch.full((4,), 8, dtype=torch.int32)
    return mqa_logits(q, keys, torch.ones(8), torch.randn(4, 64), torch.zeros_like(ends), ends)
