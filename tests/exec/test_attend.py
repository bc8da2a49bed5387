"""Every way of attending gives the same on the same cache, and no op is handed bytes of another format than its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from attention_samples import FP8, MODEL, NEW, SCALE, SMALL, SPECULATIVE, batch, by_hand, calls, check_same

from dsa_exec import record_calls
from dsa_exec.core.hardware import Capabilities
from dsa_exec.runtime import attend as attend_module
from dsa_exec.runtime.attend import attend
from dsa_exec.runtime.attention_path import AttentionSettings, attention_path


@pytest.mark.parametrize("layout", [FP8, MODEL, SMALL], ids=["fp8", "model", "small"])
def test_all_ways_are_one_where_all_is_selected(layout):
    """Dense, and sparse with every visible position selected: to rounding the same, and what is worked out by hand."""
    it = batch(layout)
    everything = it.positions(130)
    wanted = by_hand(it, everything)
    check_same(it.attend("dense", None), wanted)
    check_same(it.attend("sparse_bf16", everything), wanted)
    if layout is FP8:
        check_same(it.attend("fp8_kv", everything), wanted)


@pytest.mark.parametrize("layout", [FP8, MODEL, SMALL], ids=["fp8", "model", "small"])
@pytest.mark.parametrize("k", [1, 3, 64, 200])
def test_sparse_ways_are_one_in_every_phase(layout, k):
    """A selection as positions in prefill, or as slots in the other phases, whichever way reads the cache."""
    it = batch(layout)
    positions = it.positions(k)
    wanted = by_hand(it, positions)
    for way in ("sparse_bf16", "fp8_kv") if layout is FP8 else ("sparse_bf16",):
        check_same(it.attend(way, positions), wanted)
        for phase in ("decode", *SPECULATIVE):
            check_same(it.attend(way, it.slots(positions), phase), wanted)


@pytest.mark.parametrize("phase", ["prefill", "decode", *SPECULATIVE])
def test_t34_an_fp8_cache_is_gathered_before_a_16_bit_kernel_in_every_phase(monkeypatch, phase):
    """T34: decode, verify and mixed batches too: the kernel gets rows of q's dtype, never the cache's bytes."""
    it = batch(FP8)
    it = dataclasses.replace(it, q=it.q.bfloat16())
    positions = it.positions(20)
    selected = positions if phase == "prefill" else it.slots(positions)
    seen = []
    real = attend_module.sparse_mla_prefill

    def prefill(q, kv, indices, **options):
        seen.append((q.dtype, kv.dtype, kv.shape[1]))
        return real(q, kv, indices, **options)

    monkeypatch.setattr(attend_module, "sparse_mla_prefill", prefill)
    got = it.attend("sparse_bf16", selected, phase)
    assert seen == [(torch.bfloat16, torch.bfloat16, 576)]
    check_same(got, it.attend("fp8_kv", selected, phase), tolerance=2e-2)
    assert calls(lambda: it.attend("sparse_bf16", selected, phase)) == {"kv_gather": 1, "sparse_mla_prefill": 1}


def test_which_ops_each_way_takes():
    """fp8_kv reads the cache; a cache of q's dtype is read in place; only what must be is gathered."""
    fp8, model = batch(FP8), batch(MODEL)
    half = dataclasses.replace(model, q=model.q.half())
    at = fp8.positions(5)
    assert calls(lambda: fp8.attend("fp8_kv", at)) == {"sparse_mla_decode": 1}
    assert calls(lambda: fp8.attend("fp8_kv", at, "decode")) == {"sparse_mla_decode": 1}
    assert calls(lambda: fp8.attend("dense", None)) == {"kv_gather": 1, "dense_mla_prefill": 1}
    gathered = {"kv_gather": 1, "sparse_mla_prefill": 1}
    assert calls(lambda: half.attend("sparse_bf16", at)) == gathered
    assert calls(lambda: half.attend("sparse_bf16", at, "decode")) == gathered
    assert calls(lambda: model.attend("sparse_bf16", at)) == {"sparse_mla_prefill": 1}
    assert calls(lambda: model.attend("sparse_bf16", at, "decode")) == {"sparse_mla_prefill": 1}


@pytest.mark.parametrize(
    ("phase", "multiprocessors", "op"),
    [
        ("decode", sum(NEW), "sparse_mla_prefill"),
        ("decode", sum(NEW) + 1, "sparse_mla_decode"),
        ("target_verify", 132, "sparse_mla_decode"),
        ("prefill", 132, "sparse_mla_prefill"),
    ],
)
def test_few_rows_of_decode_are_split(phase, multiprocessors, op):
    """Over a cache of the model's dtype, rows fewer than multiprocessors go to the op that splits them; prefill not."""
    it = batch(MODEL)
    hopper = Capabilities("cuda", "sm90", "2.11.0", None, multiprocessors=multiprocessors)
    decided = attention_path(phase, MODEL, hopper, AttentionSettings.now(), index_topk=2)
    positions = it.positions(5)
    selected, rows = (positions, it.rows) if phase == "prefill" else (it.slots(positions), None)
    with record_calls() as trace:
        got = attend(decided, it.q, it.cache, selected, rows, sm_scale=SCALE, attn_sink=it.sink)
    assert [name for name, _ in trace.decisions] == [op]
    check_same(got, by_hand(it, positions))
