"""Decode captured once and replayed over growing lengths: right results, or a sentence about what has changed."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os

import pytest
import torch
from fakes import aiter as rocm_library
from fakes import deep_gemm, flash_mla
from step_samples import ints

from dsa_config import settings
from dsa_config.moments import Moments
from dsa_config.tracking import Stale
from dsa_exec import index_select, record_calls, sparse_mla_decode
from dsa_exec.caches.samples import random_index_k_cache, random_mla_cache
from dsa_exec.core.errors import DtypeError, RangeError, UnsupportedCall
from dsa_exec.core.hardware import assumed
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.registry import backends
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops.sparse_mla_decode.schedules import forget_schedules
from dsa_exec.runtime.capture import CapturedStep, UnsteadyCapture, capture_step
from dsa_exec.runtime.speculative import DraftSteps
from dsa_exec.runtime.step import Step, prepare_step

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_A_GPU = DEVICE.type == "cuda"
OPS = ("paged_mqa_logits", "topk", "sparse_mla_decode", "index_select")
DECODE = [pytest.param(op, name, "decode", 1, id=f"{op}-{name}-decode") for op in OPS for name in backends(op)]
OF_SEVERAL_ROWS = [
    pytest.param("paged_mqa_logits", name, mode, n, id=f"paged_mqa_logits-{name}-{mode}-{n}")
    for name in backends("paged_mqa_logits")
    for mode, n in (("target_verify", 2), ("target_verify", 3), ("draft_extend", 2))
]
every_way = pytest.mark.parametrize(("op", "backend", "mode", "n"), [*DECODE, *OF_SEVERAL_ROWS])
PLAIN, PRESHUFFLED = IndexKLayout(), IndexKLayout(order="preshuffled")
PAGES, TOPK = 3, 16
INDEX_HEADS, HEADS = (32, 16) if ON_A_GPU else (4, 2)
GROWING = [(5, 70, 3), (65, 128, 129), (180, 180, 185)]


class FakeGraph:
    """What a CUDA graph does, on the CPU: a replay runs what was captured, under the settings of the capture, into the
    tensors that it returned.
    """

    def __init__(self) -> None:
        self.captures, self.replays = 0, 0

    def capture(self, run):
        self.captures += 1
        self.run, self.context = run, contextvars.copy_context()
        self.result = run()
        return self.result

    def replay(self) -> None:
        self.replays += 1
        for kept, again in zip(self.result, self.context.run(self.run), strict=True):
            kept.copy_(again)


class Model:
    """One layer of a model with its caches and queries, which stay where they are."""

    def __init__(self, n: int, layout: IndexKLayout) -> None:
        generator = torch.Generator().manual_seed(17)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        self.index_cache = random_index_k_cache(generator, layout, 12, DEVICE)
        self.cache = random_mla_cache(generator, MlaLayout(), 12, DEVICE)
        self.index_q = normal(3, n, INDEX_HEADS, 128).to(E4M3).to(DEVICE)
        self.weights = normal(3 * n, INDEX_HEADS).to(DEVICE)
        self.q = normal(3 * n, HEADS, 576).bfloat16().to(DEVICE)

    def decode(self, step: Step) -> tuple[torch.Tensor, ...]:
        slots = index_select(self.index_q, self.weights, step.paged_keys(self.index_cache), TOPK).indices
        out, lse = sparse_mla_decode(self.q, self.cache, slots, sm_scale=0.05)
        return slots, out, lse


def pages() -> torch.Tensor:
    return ints(7, 2, 9, 0, 4, 11, 5, 1, 3).view(3, PAGES).to(DEVICE)


def lens_of(mode: str, n: int, lens) -> torch.Tensor:
    fewer = n if mode == "target_verify" else 0
    return ints(*(length - fewer for length in lens)).to(DEVICE)


def step_of(mode: str = "decode", n: int = 1) -> Step:
    return prepare_step(mode, lens_of(mode, n, GROWING[0]), pages(), n, index_topk=TOPK)


def graph():
    return None if ON_A_GPU else FakeGraph()


@contextlib.contextmanager
def machine_for(name: str):
    """A device that has the vendor's library, where there is no real one."""
    if name not in ("aiter", "deep_gemm", "flash_mla") or ON_A_GPU:
        yield
    elif name == "aiter":
        hw, _ = rocm_library.machine("gfx950")
        with assumed(hw), settings.override(use_aiter=True):
            yield
    else:
        hw, _ = deep_gemm.machine("sm90")
        library = flash_mla.FakeFlashMla().capabilities().vendors["flash_mla"]
        forget_schedules()
        with assumed(dataclasses.replace(hw, vendors={**hw.vendors, "flash_mla": library})):
            yield
        forget_schedules()


def captured_decode(
    mode: str = "decode", n: int = 1, layout: IndexKLayout = PLAIN, **more
) -> tuple[Model, Step, CapturedStep]:
    model, step = Model(n, layout), step_of(mode, n)
    return model, step, capture_step(lambda: model.decode(step), step.refresh, **{"graph": graph(), **more})


@every_way
@pytest.mark.skipif(ON_A_GPU, reason="the stand-in for a graph is for where there is none")
def test_a_captured_step_follows_growing_lengths(op, backend, mode, n):
    """Captured once with each backend, each replay gives what eager code gives for the lengths and pages of then."""
    expect_replays(op, backend, mode, n)


@every_way
@pytest.mark.gpu
@pytest.mark.skipif(not ON_A_GPU, reason="needs a CUDA device")
def test_a_captured_cuda_graph_follows_growing_lengths(op, backend, mode, n):
    """The same of a CUDA graph, with the libraries that are there."""
    expect_replays(op, backend, mode, n)


def expect_replays(op: str, backend: str, mode: str, n: int) -> None:
    with machine_for(backend), settings.override(**{f"{op}_backend": backend}):
        try:
            model, step, captured = captured_decode(mode, n, PRESHUFFLED if backend == "aiter" else PLAIN)
        except UnsupportedCall as refusal:
            pytest.skip(str(refusal))
        assert backend != "deep_gemm" or step.schedule is not None
        for number, lens in enumerate(GROWING):
            lens_now, pages_now = lens_of(mode, n, lens), (pages() + number) % 12
            got = [tensor.clone() for tensor in captured.replay(lens_now, pages_now)]
            with record_calls() as trace:
                eager = model.decode(prepare_step(mode, lens_now, pages_now, n, index_topk=TOPK))
            assert (op, backend) in trace.decisions
            for tensor, wanted in zip(got, eager, strict=True):
                assert torch.equal(tensor, wanted)
    seen = [min(row, TOPK) for length in GROWING[-1] for row in range(length - n + 1, length + 1)]
    assert (captured.result[0] >= 0).sum(1).tolist() == seen


@pytest.mark.parametrize(
    "changed",
    [
        {"topk_backend": "torch"},
        {"paged_mqa_logits_backend": "torch"},
        {"sparse_mla_decode_backend": "torch"},
        {"fuse_topk": False},
        {"mqa_logits_free_mem_fraction": 0.1},
        {"debug_check_indices": True},
    ],
)
def test_a_changed_setting_is_reported_before_a_replay(changed):
    """Whatever was read during the capture; nothing is replayed, and the step holds what it held."""
    _, step, captured = captured_decode(what="the decode graph")
    captured.replay(lens_of("decode", 1, GROWING[1]), pages())
    held = {name: tensor.clone() for name, tensor in step.tensors().items()}
    (name,) = changed
    with settings.override(**changed), pytest.raises(Stale, match=f"the decode graph is out of date: {name} was"):
        captured.replay(lens_of("decode", 1, GROWING[2]), pages())
    for place, tensor in step.tensors().items():
        assert torch.equal(tensor, held[place])
    captured.replay(lens_of("decode", 1, GROWING[2]), pages())
    assert step.metadata.cache_lens.tolist() == list(GROWING[2])


def test_a_change_by_the_environment_is_reported_too(monkeypatch):
    """From wherever it comes; after it is gone, the graph holds again."""
    _, _, captured = captured_decode()
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    with pytest.raises(Stale, match="fuse_topk was True and is False .*SGLANG_DSA_FUSE_TOPK"):
        captured.replay(lens_of("decode", 1, GROWING[1]), pages())
    del os.environ["SGLANG_DSA_FUSE_TOPK"]
    captured.replay(lens_of("decode", 1, GROWING[1]), pages())


@pytest.mark.parametrize(
    "changed",
    [
        {"use_fused_metadata_copy": False},
        {"enable_mtp_precompute_metadata": False},
        {"step_metadata_backend": "torch"},
        {"mqa_logits_backend": "torch"},
        {"debug_log_decisions": True},
    ],
)
def test_what_is_not_frozen_in_a_graph_may_change(changed):
    """Settings that concern what happens outside the graph, other ops, or logs alone."""
    _, step, captured = captured_decode()
    with settings.override(**changed):
        captured.replay(lens_of("decode", 1, GROWING[1]), pages())
    assert step.metadata.cache_lens.tolist() == list(GROWING[1])


def test_a_capture_under_an_override_is_replayed_under_it():
    """The override's value is what was captured: with it the graph holds, without it it is out of date."""
    with settings.override(topk_backend="torch"):
        _, _, captured = captured_decode()
        captured.replay(lens_of("decode", 1, GROWING[1]), pages())
    with pytest.raises(Stale, match="topk_backend was 'torch' and is 'auto'"):
        captured.replay(lens_of("decode", 1, GROWING[1]), pages())


def test_a_setting_that_changes_during_a_capture_is_an_error():
    """What was captured then is of no one configuration: by another thread, or an override within."""

    def changing():
        with settings.override(fuse_topk=settings.fuse_topk is False):
            return (torch.full((1,), int(settings.fuse_topk)),)

    def overridden():
        with settings.override(kv_format="model"):
            return (torch.full((1,), len(settings.kv_format)),)

    for run, name in ((changing, "fuse_topk"), (overridden, "kv_format")):
        with pytest.raises(UnsteadyCapture, match=f"^{name} changed while the verify graph was captured") as caught:
            capture_step(run, lambda: None, what="the verify graph", graph=FakeGraph())
        assert caught.value.settings == (name,)


def test_what_reads_no_setting_is_always_current():
    """There is nothing to compare."""
    counted = FakeGraph()
    captured = capture_step(lambda: (torch.zeros(1),), lambda: None, graph=counted)
    with settings.override(topk_backend="torch"):
        assert captured.replay() is captured.result
    assert captured.guard is None
    assert (counted.captures, counted.replays) == (1, 1)


def test_a_bad_argument_is_told_and_nothing_is_replayed():
    """The refresh raises before the graph runs."""
    counted, step = FakeGraph(), step_of()
    captured = capture_step(lambda: (step.metadata.cache_lens + 1,), step.refresh, graph=counted)
    with pytest.raises(DtypeError, match="page_table is int64"):
        captured.replay(ints(1, 2, 3).to(DEVICE), pages().long())
    assert counted.replays == 0


def test_the_moment_of_a_capture_is_told(monkeypatch):
    """Settings that wait for the next capture are from then on reported as too late, while the step is there."""
    told = []
    monkeypatch.setattr(Moments, "passed", lambda _self, effect, what, _site, *made: told.append((effect, what, made)))
    captured = capture_step(lambda: (torch.zeros(1),), lambda: None, what="the decode graph", graph=FakeGraph())
    assert told == [("capture", "the decode graph was captured", ([captured], None))]
    assert captured.what == "the decode graph"


def test_a_chain_of_draft_steps_is_one_graph():
    """All steps are refreshed before each replay, and every layer of every step sees its own."""
    model, steps = Model(1, PLAIN), [step_of() for _ in range(4)]
    drafts = DraftSteps(steps, offsets=[0, 1, 1, 2])

    def run():
        return [tensor for step in steps for tensor in model.decode(step)]

    captured = capture_step(run, drafts.refresh, graph=graph())
    for lens in GROWING[1:]:
        got = [tensor.clone() for tensor in captured.replay(lens_of("decode", 1, lens), pages())]
        wanted = []
        for offset in (0, 1, 1, 2):
            lens_now = lens_of("decode", 1, lens) + offset
            wanted += model.decode(prepare_step("decode", lens_now, pages(), index_topk=TOPK))
        for tensor, other in zip(got, wanted, strict=True):
            assert torch.equal(tensor, other)


@pytest.mark.skipif(ON_A_GPU, reason="a stand-in for deep_gemm computes on the CPU")
def test_T14_a_schedule_that_was_left_behind_is_seen():
    """T14: lengths of now with the schedule of before would leave the last positions unscored; it is told in words."""
    hw, _ = deep_gemm.machine("sm90")
    with assumed(hw), settings.override(paged_mqa_logits_backend="deep_gemm"):
        model, step = Model(1, PLAIN), step_of()
        longer = prepare_step("decode", ints(6, 71, 4), pages(), index_topk=TOPK, scheduled=False)
        with pytest.raises(RangeError, match=r"keys.schedule was made for 5 positions at \[0, 0\]"):
            model.decode(dataclasses.replace(longer, schedule=step.schedule))
        step.refresh(ints(6, 71, 4), pages())
        assert step.schedule.context_lens.tolist() == [[6], [71], [4]]
        model.decode(step)
