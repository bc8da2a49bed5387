"""When aiter is refused, in words, and when `auto` wants it; a broken one is told, and not taken for a missing one."""

from __future__ import annotations

import dataclasses
import types

import pytest
import torch
from aiter_samples import CPU, OPS, PRESHUFFLED, by_aiter, call, refusal
from fakes.aiter import machine, rocm

from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.core.aiter_functions import TOPK, aiter_function
from dsa_exec.core.hardware import assumed, capabilities
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.vendors import Library, Missing
from dsa_exec.dispatch.select import forget_decisions
from dsa_exec.layouts.index_k import IndexKLayout


@pytest.fixture(autouse=True)
def _on():
    with settings.override(use_aiter=True):
        yield


@pytest.mark.parametrize("op", OPS)
def test_off_rocm_or_switched_off_aiter_is_refused_by_name(op):
    """Named, it does not fall back; the sentence says what is in the way."""
    hw, library = machine()
    assert refusal(op, dataclasses.replace(hw, is_hip=False, arch="sm90")) == "arch=sm90: aiter is for ROCm"
    with settings.override(use_aiter=False):
        assert refusal(op, hw) == "SGLANG_USE_AITER is off"
    assert refusal(op, rocm("gfx950", "3.6.0", Missing("aiter", "aiter is not installed"))) == "aiter is not installed"
    assert library.calls == []


@pytest.mark.parametrize("op", OPS)
def test_auto_passes_on_aiter_where_nobody_asks_for_it(op, caplog):
    """On a CUDA device and with use_aiter off it declines, which is no fall-back and is not told."""
    hw, library = machine()
    for other, use, sentence in (
        (capabilities(CPU), True, "for ROCm, this is cpu"),
        (hw, False, "SGLANG_USE_AITER is"),
    ):
        with assumed(other), settings.override(use_aiter=use), record_calls() as trace:
            call(op)
        ((decision, _),) = trace.decisions.values()
        assert dict(decision.declined)["aiter"].startswith(sentence)
    assert library.calls == []
    assert not [it for it in caplog.records if "aiter refuses" in it.message]


def test_auto_takes_aiter_for_what_its_matrix_units_are_for():
    """Scores and top-k go to aiter; stores and gathers to a backend that needs no passes of its own to be exact."""
    hw, _ = machine()
    chosen = {}
    with assumed(hw):
        for op in OPS:
            with record_calls() as trace:
                call(op)
            ((decision, _),) = trace.decisions.values()
            chosen[op] = decision.backend.name
    assert {op for op, name in chosen.items() if name == "aiter"} == {"mqa_logits", "paged_mqa_logits", "topk"}


def test_use_aiter_takes_effect_at_the_next_call():
    """A decision is remembered under the setting that it was made by."""
    hw, library = machine()
    for use in (True, False, True):
        with settings.override(use_aiter=use), assumed(hw):
            call("topk")
    assert len(library.named("topk")) == 2


@pytest.mark.parametrize("op", OPS)
def test_t27_a_broken_install_is_the_refusal(op, caplog):
    """T27: what the import raised, whole; `auto` says once what it falls back from, and a repaired one is taken."""
    words = "aiter is installed, and its import fails: OSError: libamdhip64.so.6"
    broken = rocm("gfx950", "3.6.0", Missing("aiter", words))
    assert refusal(op, broken) == words
    with assumed(broken):
        call(op)
    told = [it.message for it in caplog.records if it.name == "dsa_exec.dispatch" and "libamdhip64" in it.message]
    assert len(told) == (0 if op in ("index_store", "index_gather") else 1)
    hw, library = machine()
    by_aiter(op, hw)
    assert len(library.calls) == 1


def test_t27_a_part_whose_import_fails_is_the_refusal():
    """T27: aiter itself is there; its paged kernel's module raises, and the others are not harmed."""
    hw, library = machine(triton="3.5.0")
    words = "RuntimeError: aiter gluon kernels require triton>=3.6.0, found 3.5.0"
    sentence = refusal("paged_mqa_logits", hw, IndexKLayout(page_tokens=1))
    assert sentence == f"the import of aiter.ops.triton.attention.pa_mqa_logits fails: {words}"
    by_aiter("mqa_logits", hw)
    assert [it.name for it in library.calls] == ["mqa_logits"]


@pytest.mark.parametrize(
    ("op", "arch", "build", "layout", "changes", "words"),
    [
        (
            "index_store",
            "gfx942",
            "0.1.20",
            PRESHUFFLED,
            {},
            "arch=gfx942: aiter stores e4m3fnuz there, the cache holds",
        ),
        (
            "index_store",
            "gfx950",
            "0.1.9",
            PRESHUFFLED,
            {},
            "aiter (amd-aiter 0.1.9, interface generation 1) takes no pre",
        ),
        (
            "index_gather",
            "gfx950",
            "0.1.9",
            PRESHUFFLED,
            {},
            "cp_gather_indexer_k_quant_cache of aiter (amd-aiter 0.1.9",
        ),
        ("topk", "gfx950", "0.1.13", PRESHUFFLED, {}, "takes no k and no stable"),
        (
            "paged_mqa_logits",
            "gfx950",
            "0.1.20",
            IndexKLayout(),
            {},
            "plain pages of 64 tokens, aiter takes plain pages of",
        ),
        (
            "paged_mqa_logits",
            "gfx950",
            "0.1.20",
            IndexKLayout(page_tokens=48, order="preshuffled"),
            {},
            "pages of 48 tokens, aiter takes divisors and multiples of 256",
        ),
        (
            "paged_mqa_logits",
            "gfx942",
            "0.1.20",
            PRESHUFFLED,
            {},
            "arch=gfx942: -0 is NaN there, and this cache may hold",
        ),
        (
            "paged_mqa_logits",
            "gfx950",
            "0.1.20",
            PRESHUFFLED,
            {"max_context_len": 2**29},
            "max_context_len=536870912: a row has more than the 2147483647 bytes that aiter addresses",
        ),
        (
            "paged_mqa_logits",
            "gfx90a",
            "0.1.20",
            PRESHUFFLED,
            {},
            "arch=gfx90a: aiter scores on gfx942, gfx950, gfx1250",
        ),
        ("mqa_logits", "gfx90a", "0.1.20", PRESHUFFLED, {}, "arch=gfx90a: aiter scores on gfx942, gfx950, gfx1250"),
    ],
)
def test_what_aiter_cannot_do_is_said_with_the_value(op, arch, build, layout, changes, words):
    """Each limit is one sentence with what came in it."""
    hw, library = machine(arch, build=build)
    assert words in refusal(op, hw, layout, **changes)
    assert library.calls == []


def test_heads_and_channels_that_aiter_is_not_known_to_take():
    """More than 64 heads, none, channels that are no power of two, queries that are no e4m3."""
    hw, _ = machine()
    for heads in (0, 65, 128):
        q, weights = torch.zeros(2, heads, 128).to(E4M3), torch.zeros(2, heads)
        assert refusal("mqa_logits", hw, q=q, head_weights=weights).startswith(f"{heads} heads, aiter's kernels are")
    q, keys = torch.zeros(2, 32, 96).to(E4M3), torch.zeros(9, 96).to(E4M3)
    assert refusal("mqa_logits", hw, q=q, keys=keys) == "96 channels, aiter takes powers of two from 32 on"
    q, keys = torch.zeros(2, 32, 128), torch.zeros(9, 128)
    assert refusal("mqa_logits", hw, q=q, keys=keys, scales=None) == "q is float32, aiter takes float8_e4m3fn"
    apart = torch.zeros(9, 256).to(E4M3)[:, :128]
    assert refusal("mqa_logits", hw, keys=apart).startswith("keys are not contiguous")


def test_an_ahead_of_time_kernel_is_for_plain_pages_too():
    """aiter stops at an assertion for Triton 3.4; here it is a sentence, for either kind of pages."""
    hw, _ = machine(triton="3.4.0", build="0.1.13", ahead_of_time=True)
    with settings.override(aiter_enable_aot_gluon_pa_mqa_logits=True):
        for layout in (PRESHUFFLED, IndexKLayout(page_tokens=1)):
            assert "wanted Triton before 3.4.0" in refusal("paged_mqa_logits", hw, layout)
        new, library = machine(triton="3.6.0", ahead_of_time=True)
        by_aiter("paged_mqa_logits", new, IndexKLayout(page_tokens=1))
        assert len(library.calls) == 1
    plain, library = machine(triton="3.4.0", build="0.1.13")
    by_aiter("paged_mqa_logits", plain, IndexKLayout(page_tokens=1))
    assert "Triton 3.4.0; wanted Triton 3.5.0" in refusal("paged_mqa_logits", plain)
    assert len(library.calls) == 1


def test_a_function_that_is_not_there_is_no_attribute_error():
    """Who runs a backend that would have refused gets the reason."""
    with pytest.raises(ModuleNotFoundError, match="aiter is broken"):
        aiter_function(rocm("gfx950", "3.6.0", Missing("aiter", "aiter is broken")), TOPK)
    empty = Library("aiter", None, None, 1, types.ModuleType("aiter"))
    with pytest.raises(ModuleNotFoundError, match="has no top_k_per_row_prefill"):
        aiter_function(rocm("gfx950", "3.6.0", empty), TOPK)


def test_a_decision_about_aiter_is_made_once(monkeypatch):
    """Conditions are not worked through on every call."""
    hw, _ = machine()
    asked = []
    monkeypatch.setattr("dsa_exec.ops.paged_mqa_logits.on_aiter.refuses_preshuffle", lambda *_, **__: asked.append(1))
    forget_decisions()
    for _ in range(3):
        by_aiter("paged_mqa_logits", hw)
    forget_decisions()
    assert asked == [1]
