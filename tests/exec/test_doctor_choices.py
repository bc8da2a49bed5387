"""What `dsa doctor` says would run each op, why, and what would change it, on this hardware and on other."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from dsa_config import settings
from dsa_config.declarations.backends import backend_names
from dsa_exec import record_calls
from dsa_exec.cli.doctor import examination, other_backends
from dsa_exec.cli.doctor.examination import examine
from dsa_exec.cli.doctor.report import DoctorReport, OpChoice, TypicalCall
from dsa_exec.cli.doctor.typical_calls import Sizes, typical_work
from dsa_exec.core import triton_support
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.vendors import Library, Missing
from dsa_exec.dispatch import registry, select
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.registry import op_names


def nothing(*_: object, **__: object) -> None:
    """A vendor's function that is never called."""


def with_attn_sink(attn_sink: None = None) -> None:
    """The mark of a newer flash_mla."""


FAKES = {
    "deep_gemm": Library("deep_gemm", "sgl-deep-gemm", "0.1.4", 1, SimpleNamespace(__file__="/x/deep_gemm.py")),
    "flash_mla": Library(
        "flash_mla",
        "sgl-flash-mla",
        "1.0.0",
        2,
        SimpleNamespace(flash_mla_with_kvcache=with_attn_sink, flash_mla_sparse_fwd=with_attn_sink),
    ),
    "aiter": Missing("aiter", "aiter is not installed"),
}
HOPPER = Capabilities("cuda", "sm90", torch.__version__, "3.6.0", multiprocessors=132, vendors=FAKES)
BARE = dataclasses.replace(HOPPER, vendors={name: Missing(name, f"{name} is not installed") for name in FAKES})


def op_of(report: DoctorReport, op: str) -> OpChoice:
    (found,) = (it for it in report.ops if it.op == op)
    return found


def only_call(report: DoctorReport, op: str) -> TypicalCall:
    (call,) = op_of(report, op).calls
    return call


@pytest.fixture(scope="module", autouse=True)
def _not_interpreted() -> Iterator[None]:
    """As in a process whose Triton compiles: assumed hardware is asked about with the Triton of the process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_support, "is_interpreted", lambda: False)
        yield


@pytest.fixture(scope="module")
def hopper(_not_interpreted: None) -> DoctorReport:
    """The report for an assumed H100 with vendor libraries."""
    return examine(assume=HOPPER)


def test_every_op_has_typical_calls_and_every_backend_an_answer(hopper):
    """Nothing is left out: ops, backends, and a reason or a setting for each backend that was not chosen."""
    assert [it.op for it in hopper.ops] == list(op_names())
    for op in hopper.ops:
        assert op.calls, op.op
        for call in op.calls:
            assert call.why
            assert {call.backend, *(it.backend for it in call.others)} == set(backend_names(op.op))
            for other in call.others:
                assert (other.setting is not None) == (other.verdict == "could run")
                assert other.reason or other.setting
                assert other.setting in (None, f"SGLANG_DSA_{op.op.upper()}_BACKEND={other.backend}")


@pytest.mark.parametrize("hw", [HOPPER, BARE, dataclasses.replace(BARE, arch="gfx950", is_hip=True)])
def test_it_says_what_the_dispatch_would_do(hw):
    """Backend and reason are those of the dispatch itself, call by call."""
    report = examine(assume=hw)
    told = {(op.op, work): (call.backend, call.why) for op in report.ops for call in op.calls for work in call.work}
    with assumed(hw):
        asked = {(it.op, it.words): select.weigh(it.op, it.make(), hw) for it in typical_work(Sizes())}
    assert told == {key: (decision.backend.name, decision.why) for key, decision in asked.items()}


def test_calls_that_are_decided_alike_are_told_once(hopper):
    """Each call is told of exactly once, and no two entries of an op say the same."""
    for op in hopper.ops:
        works = [work for call in op.calls for work in call.work]
        assert len(works) == len(set(works))
        said = [(call.backend, call.why, str(call.others)) for call in op.calls]
        assert len(said) == len(set(said))


def test_padding_is_visible():
    """What a backend does to a call to be able to run it is part of the reason: 16 heads become 64."""
    with settings.override(sparse_mla_decode_backend="flash_mla"):
        report = examine(assume=HOPPER, sizes=Sizes(heads=(16,)))
    assert "16 heads padded to 64" in only_call(report, "sparse_mla_decode").why
    other = next(it for it in only_call(report, "sparse_mla_prefill").others if it.backend == "flash_mla")
    assert "16 heads padded to 64" in str(other.reason)


def test_a_missing_library_is_the_reason():
    """The sentence of the missing library, for the backend that needs it."""
    call = only_call(examine(assume=BARE), "mqa_logits")
    (other,) = (it for it in call.others if it.backend == "deep_gemm")
    assert (other.verdict, other.reason, other.setting) == ("refuses", "deep_gemm is not installed", None)


def test_sizes_reach_the_calls():
    """More heads than a kernel takes are refused with their number; rows a request are told."""
    sizes = Sizes(heads=(300,), index_heads=48, next_n=(3,), batch=5, rows=7, context=100)
    report = examine(assume=HOPPER, sizes=sizes)
    calls = op_of(report, "sparse_mla_decode").calls
    assert [work for it in calls for work in it.work] == ["fp8_kv prefill, 300 heads", "verify (next_n=3), 300 heads"]
    (sentence,) = {it.reason for call in calls for it in call.others if it.backend == "flash_mla"}
    assert sentence == "300 heads: flash_mla takes at most 128"
    (gluon,) = (it for it in only_call(report, "paged_mqa_logits").others if it.backend == "gluon")
    assert gluon.reason == "heads=48, this kernel takes 32 or 64"
    assert report.sizes.model_dump() == {
        "heads": [300],
        "index_heads": 48,
        "next_n": [3],
        "batch": 5,
        "rows": 7,
        "context": 100,
    }


def test_nothing_of_size_is_allocated():
    """Calls on terabytes of caches are asked about on a machine that has none of it."""
    report = examine(assume=HOPPER, sizes=Sizes(batch=2**16, rows=2**20, context=2**24, next_n=(64,)))
    assert all(call.backend is not None for op in report.ops for call in op.calls)


def test_formats_follow_the_settings():
    """A cache in the model's dtype is what kernels for fp8 refuse, so that auto takes another."""
    with settings.override(index_k_format="model", kv_format="model"):
        report = examine(assume=HOPPER)
    for op in ("paged_mqa_logits", "sparse_mla_decode"):
        call = only_call(report, op)
        assert call.backend == "triton"
        assert "model" in next(str(it.reason) for it in call.others if it.backend == "gluon")


def test_a_named_backend_that_refuses_is_an_error(monkeypatch):
    """The call would fail: the refusal, where the name comes from, and what would run it."""
    monkeypatch.setattr(triton_support, "is_interpreted", lambda: True)
    settings.set(topk_backend="gluon")
    report = examine(torch.device("cpu"))
    call = only_call(report, "topk")
    assert (call.backend, call.why) == (
        None,
        "topk: gluon: arch=cpu: this kernel is written for sm90 (chosen by topk_backend=gluon)",
    )
    others = {it.backend: (it.verdict, it.setting) for it in call.others}
    assert others["gluon"] == ("refuses", None)
    assert others["triton"] == ("could run", "topk_backend=triton")
    assert others["torch"] == ("could run", "topk_backend=torch")
    assert call.others[-1].reason == "auto would choose it"
    (error,) = (it for it in report.troubles if it.severity == "error")
    assert (error.kind, error.name, report.errors) == ("unsupported-call", "topk", 1)
    assert error.message.startswith("topk would fail in prefill, decode, verify (next_n=2): topk: gluon: arch=cpu")
    assert "settings.set at " in str(error.origin)
    assert error.suggestion == "topk_backend=triton or topk_backend=torch would run it"


def test_what_would_choose_another_backend_depends_on_the_layer(monkeypatch):
    """A variable, unless the process itself has set the field, which is stronger than any variable."""
    monkeypatch.setenv("SGLANG_DSA_TOPK_BACKEND", "torch")
    report = examine(assume=HOPPER)
    by_variable = {it.setting for it in only_call(report, "topk").others if it.setting}
    assert by_variable == {"SGLANG_DSA_TOPK_BACKEND=gluon", "SGLANG_DSA_TOPK_BACKEND=triton"}
    assert op_of(report, "topk").origin == "environment variable SGLANG_DSA_TOPK_BACKEND"
    with settings.override(topk_backend="triton"):
        others = only_call(examine(assume=HOPPER), "topk").others
    assert {it.setting for it in others if it.setting} == {"topk_backend=gluon", "topk_backend=torch"}


def test_a_bad_value_is_told_and_auto_is_assumed(monkeypatch):
    """A doctor does not die of the illness: the setting is an error, and what auto would choose is told."""
    monkeypatch.setenv("SGLANG_DSA_TOPK_BACKEND", "fastest")
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "perhaps")
    monkeypatch.setenv("SGLANG_DSA_KV_FORMAT", "model")
    report = examine(assume=HOPPER)
    topk = op_of(report, "topk")
    assert (topk.choice, topk.source, topk.calls[0].backend) == (None, None, "gluon")
    assert "SGLANG_DSA_TOPK_BACKEND='fastest'" in topk.origin
    assert [it.name for it in report.unreadable] == ["fuse_topk", "topk_backend"]
    assert [it.name for it in report.settings] == ["kv_format"]
    assert [(it.kind, it.name) for it in report.troubles if it.severity == "error"] == [
        ("bad-value", "SGLANG_DSA_FUSE_TOPK"),
        ("bad-value", "SGLANG_DSA_TOPK_BACKEND"),
    ]
    assert only_call(report, "sparse_mla_decode").backend == "triton"  # what can be read still counts


def test_sources_that_cannot_be_read_are_told(monkeypatch):
    """Then no setting can be read: the source is the one error, and the report is whole."""
    monkeypatch.setenv("SGLANG_DSA_CONFIG", "/nowhere/dsa.toml")
    try:
        report = examine(assume=HOPPER)
    finally:
        monkeypatch.undo()
    if settings.loaded_files() == () and report.unreadable:  # nothing was loaded before in this process
        assert {it.name for it in report.unreadable} == set(type(settings.snapshot()).model_fields)
    assert [(it.severity, it.kind) for it in report.troubles] == [("error", "unusable-source")]
    assert all(op.calls for op in report.ops)


@pytest.fixture
def with_backend(monkeypatch):
    """Puts a backend of a name beside those of topk."""

    def put(name: str, made: Backend | Exception) -> None:
        def backend(op: str, wanted: str) -> Backend:
            if (op, wanted) != ("topk", name):
                return registry.backend(op, wanted)
            if isinstance(made, Exception):
                raise made
            return made

        def backends(op: str) -> dict[str, Backend]:
            found = [backend(op, it) for it in names(op)]
            return {it.name: it for it in sorted(found, key=lambda it: it.rank)}

        def names(op: str) -> tuple[str, ...]:
            return (*backend_names(op), name) if op == "topk" else backend_names(op)

        for module in (select, other_backends):
            monkeypatch.setattr(module, "backend", backend)
        monkeypatch.setattr(select, "backends", backends)
        monkeypatch.setattr(other_backends, "backend_names", names)

    return put


def test_a_backend_that_cannot_be_imported_is_an_error(with_backend):
    """It is never taken for absent: auto fails, and the other backends are told all the same."""
    with_backend("odd", ImportError("no odd.so"))
    report = examine(assume=HOPPER)
    call = only_call(report, "topk")
    assert (call.backend, call.why) == (None, "ImportError: no odd.so")
    assert call.others[-1].model_dump() == {
        "backend": "odd",
        "verdict": "fails",
        "reason": "ImportError: no odd.so",
        "setting": None,
    }
    assert [(it.severity, it.kind, it.name) for it in report.troubles] == [("error", "broken-backend", "topk")]
    assert only_call(report, "kv_store").backend == "triton"


def test_a_backend_that_fails_when_it_is_asked_is_a_warning_where_another_is_named(with_backend):
    """The calls run, and still the defect is told."""

    def fails(*_: object) -> None:
        raise ZeroDivisionError("of heads")

    with_backend("odd", Backend("odd", nothing, fails))
    with settings.override(topk_backend="torch"):
        report = examine(assume=HOPPER)
    assert only_call(report, "topk").backend == "torch"
    (warning,) = report.troubles
    assert (warning.severity, warning.kind) == ("warning", "broken-backend")
    assert warning.message == "topk: the backend odd could not be asked: ZeroDivisionError: of heads"


def test_a_defect_of_a_typical_call_is_no_end(monkeypatch):
    """Each op is asked about on its own."""
    broken = dataclasses.replace(typical_work(Sizes())[0], make=lambda: 1 / 0)
    monkeypatch.setattr(examination, "typical_work", lambda sizes: (broken,))
    report = examine(assume=HOPPER)
    (error,) = report.troubles
    assert (error.kind, error.name) == ("not-asked", broken.op)
    assert "ZeroDivisionError" in error.message


def test_asking_leaves_no_trace(caplog):
    """Nothing is logged, no decision is recorded, and a fall-back is still said when it happens."""
    with caplog.at_level(logging.INFO), record_calls() as trace, settings.override(debug_log_decisions=True):
        examine(assume=dataclasses.replace(BARE, arch="gfx942", is_hip=True))
    assert caplog.records == []
    assert (trace.decisions, trace.chunked) == ({}, [])


def test_the_way_of_attending_is_told(hopper):
    """For short and long prompts, decode and verification: the way, and why; a short prompt is attended to densely."""
    told = {it.what: it.choice for it in hopper.steps if it.what.startswith("attention")}
    assert told == {
        "attention, prefill of 2048 tokens": "dense",
        "attention, prefill of 32768 tokens": "fp8_kv",
        "attention, decode": "fp8_kv",
        "attention, verify (next_n=2)": "fp8_kv",
    }
    with settings.override(prefill_dense_attn_kv_len_threshold=0):
        steps = examine(assume=dataclasses.replace(BARE, arch="sm100")).steps
    assert [it.choice for it in steps[:2]] == ["sparse_bf16", "sparse_bf16"]
    assert "prefill_dense_attn_kv_len_threshold=0" in steps[0].why


def test_a_way_that_cannot_be_taken_is_an_error():
    """What a setting names is not replaced by another way: each step that would fail is told, with its reason."""
    with settings.override(prefill_attention="dense", decode_attention="fp8_kv", kv_format="model"):
        report = examine(assume=HOPPER)
    assert [it.choice for it in report.steps[:4]] == ["dense", None, None, None]
    errors = [(it.kind, it.name) for it in report.troubles if it.severity == "error"]
    assert errors == [("unsupported-path", "prefill_attention"), *[("unsupported-path", "decode_attention")] * 2]
    assert "the longest request has 32768 tokens" in report.troubles[0].message
    assert "the MLA cache has format model" in report.troubles[1].message
    assert report.troubles[1].suggestion == "decode_attention=auto chooses for each batch"


def test_schedules_of_deep_gemm_are_told(hopper):
    """Native or expanded rows, with the reason; nothing where deep_gemm cannot be used."""
    told = {it.what: (it.choice, it.why) for it in hopper.steps}
    assert told["rows for deep_gemm's paged kernel, decode"] == ("expanded", "a request has 1 row")
    choice, why = told["rows for deep_gemm's paged kernel, verify (next_n=2)"]
    assert choice == "native"
    assert "next_n=2" in why
    assert not [it for it in examine(assume=BARE).steps if "deep_gemm" in it.what]
