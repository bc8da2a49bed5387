"""What `dsa doctor` tells of the pages of new index-K caches: on ROCm a chain of reasons."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from dsa_config import settings
from dsa_exec import IndexKCache, MlaCache
from dsa_exec.cli.doctor.examination import examine
from dsa_exec.cli.doctor.report import DoctorReport
from dsa_exec.cli.doctor.show import show
from dsa_exec.cli.doctor.typical_caches import index_k_cache, mla_cache
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.preshuffle import preshuffle_conditions
from dsa_exec.core.vendors import Library, Missing


def paged(q: object, Preshuffle: bool = False) -> None:
    """The mark of aiter's paged kernel."""


AITER = SimpleNamespace(
    __name__="aiter",
    __file__="/opt/aiter/__init__.py",
    indexer_k_quant_and_cache=paged,
    cp_gather_indexer_k_quant_cache=paged,
    ops=SimpleNamespace(
        triton=SimpleNamespace(
            attention=SimpleNamespace(pa_mqa_logits=SimpleNamespace(deepgemm_fp8_paged_mqa_logits=paged))
        )
    ),
)
NOT_THERE = {name: Missing(name, f"{name} is not installed") for name in ("deep_gemm", "flash_mla", "aiter")}
MI300 = Capabilities(
    "cuda",
    "gfx942",
    torch.__version__,
    "3.5.0",
    is_hip=True,
    multiprocessors=304,
    vendors={**NOT_THERE, "aiter": Library("aiter", "amd-aiter", "0.1.10", 1, AITER)},
)
H100 = Capabilities("cuda", "sm90", torch.__version__, "3.6.0", multiprocessors=132, vendors=NOT_THERE)


def text_of(report: DoctorReport, capsys: pytest.CaptureFixture[str]) -> str:
    show(report)
    return capsys.readouterr().out


def test_T4_the_chain_of_reasons_follows_the_settings_as_they_are_now(monkeypatch):
    """T4: every condition is told with what was found; a flag that is changed in the running process counts at once."""
    off = examine(assume=MI300).index_pages
    assert (off.order, off.page_tokens) == ("plain", 1)
    assert [(it.name, it.holds) for it in off.conditions if not it.holds] == [("use_aiter", False)]
    monkeypatch.setenv("SGLANG_USE_AITER", "1")
    on = examine(assume=MI300).index_pages
    assert (on.order, on.page_tokens) == ("preshuffled", 64)
    assert all(it.holds for it in on.conditions)
    with settings.override(hip_disable_preshuffle=True):
        disabled = examine(assume=MI300).index_pages
    assert (disabled.order, disabled.page_tokens) == ("plain", 1)
    assert [it.name for it in disabled.conditions if not it.holds] == ["hip_disable_preshuffle"]
    assert examine(assume=MI300).index_pages == on


@pytest.mark.parametrize(
    ("triton", "holds"),
    [
        ("3.4.0", False),
        ("3.5.0rc1", False),
        ("3.5.0a0", False),
        ("3.5.0", True),
        ("3.5.0+rocm7", True),
        ("3.6.0", True),
    ],
)
def test_T4_a_pre_release_of_triton_is_told_to_be_none(triton, holds, monkeypatch):
    """T4: 3.5.0rc1 is not 3.5.0; where aiter's pages are wanted and cannot be had, a warning has the condition."""
    monkeypatch.setenv("SGLANG_USE_AITER", "1")
    report = examine(assume=dataclasses.replace(MI300, triton_version=triton))
    assert (report.index_pages.order == "preshuffled") == holds
    warnings = [it for it in report.troubles if it.kind == "not-preshuffled"]
    assert len(warnings) == (not holds)
    for warning in warnings:
        assert (warning.severity, warning.origin) == ("warning", "environment variable SGLANG_USE_AITER")
        assert f"Triton {triton}" in warning.message
        assert triton in report.index_pages.why


def test_the_chain_is_that_of_the_allocation():
    """Word for word the conditions that decide, in their order."""
    with settings.override(use_aiter=True):
        told = examine(assume=dataclasses.replace(MI300, arch="gfx90a")).index_pages
        chain = preshuffle_conditions(
            dataclasses.replace(MI300, arch="gfx90a"),
            use_aiter=True,
            hip_disable_preshuffle=False,
            aiter_enable_aot_gluon_pa_mqa_logits=False,
        )
    assert [(it.name, it.found, it.wanted, it.holds) for it in told.conditions] == [
        (it.name, it.found, it.wanted, it.holds) for it in chain
    ]
    assert str(next(it for it in chain if not it.holds)) in told.why


def test_the_text_has_the_chain_on_rocm_and_a_line_elsewhere(capsys):
    """On ROCm a line for each condition, whether it holds; on CUDA the pages and why."""
    with settings.override(use_aiter=True):
        text = text_of(examine(assume=dataclasses.replace(MI300, arch="gfx90a")), capsys)
    chain = text[text.index("pages of a new index-K cache") :].splitlines()
    assert "plain, 1 token each" in chain[1]
    assert chain[2].split()[0] == "yes"
    assert [line for line in chain if line.split()[:1] == ["no"]]
    assert any("gfx90a; wanted gfx942" in line for line in chain)
    lines = text_of(examine(assume=H100), capsys).splitlines()
    place = lines.index("pages of a new index-K cache")
    assert lines[place + 1 : place + 3] == ["  plain, 64 tokens each: kernels for CUDA take these", ""]


def test_who_turns_preshuffled_pages_off_is_not_warned():
    """Plain pages are then what is wanted."""
    with settings.override(use_aiter=True, hip_disable_preshuffle=True):
        report = examine(assume=dataclasses.replace(MI300, triton_version="3.4.0"))
    assert "not-preshuffled" not in [it.kind for it in report.troubles]


@pytest.mark.parametrize(
    "hw", [MI300, H100, dataclasses.replace(MI300, arch="gfx950"), Capabilities("cpu", "cpu", "", "")]
)
@pytest.mark.parametrize("changed", [{}, {"use_aiter": True}, {"index_k_format": "model", "kv_format": "model"}])
def test_typical_calls_have_caches_as_they_would_be_allocated(hw, changed):
    """Shape, dtype and layout are those of an allocation under the same settings on the same hardware."""
    with settings.override(**changed), assumed(hw):
        for made, allocated in (
            (index_k_cache(1000), IndexKCache.allocate(1000, device="cpu", model_dtype=torch.bfloat16)),
            (mla_cache(1000), MlaCache.allocate(1000, device="cpu", model_dtype=torch.bfloat16)),
        ):
            assert made.layout == allocated.layout
            assert (made.data.shape, made.data.dtype) == (allocated.data.shape, allocated.data.dtype)
            assert made.data.is_meta


def test_what_reads_a_variable_otherwise_is_told(monkeypatch):
    """aiter reads its variables itself: a value from another layer, or one that it has no word for, is a warning."""
    monkeypatch.setenv("AITER_ENABLE_AOT_GLUON_PA_MQA_LOGITS", "true")
    settings.set(use_aiter=True)
    found = {it.name: it for it in examine(torch.device("cpu")).troubles}
    assert {it.kind for it in found.values()} == {"read-otherwise"}
    assert set(found) == {"AITER_ENABLE_AOT_GLUON_PA_MQA_LOGITS", "SGLANG_USE_AITER"}
    assert "settings.set at " in str(found["SGLANG_USE_AITER"].origin)
    assert "SGLANG_USE_AITER is not set in the environment" in found["SGLANG_USE_AITER"].message


def test_a_switch_that_cannot_be_read_is_told_once(monkeypatch):
    """As a bad value; what others make of the text is not told beside it."""
    monkeypatch.setenv("SGLANG_USE_AITER", "perhaps")
    assert [it.kind for it in examine(torch.device("cpu")).troubles] == ["bad-value"]
