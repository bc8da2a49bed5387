"""Every caller's rows go through one loop: the same result to the bit whatever the chunks, with any memory."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import logging
from pathlib import Path

import pytest
import torch
import torch.distributed
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import dsa_exec
from dsa_config import settings
from dsa_exec import GatheredKeys, MemoryReading, PagedKeys, index_gather, index_select, record_calls
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.errors import OutOfMemory, UnsupportedCall
from dsa_exec.core.hardware import Capabilities, assumed
from dsa_exec.core.logits_workspace import LogitsWorkspace, forget_workspaces, kept_bytes, kept_workspace
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch import chunked
from dsa_exec.dispatch.registry import backends
from dsa_exec.dispatch.select import forget_decisions
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.memory import logits_budget as budgets
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.logits_budget import asks_for_free_memory, logits_budget
from dsa_exec.ops.index_select import chunks, select_now
from dsa_exec.runtime.query_rows import query_rows

SOURCE = Path(dsa_exec.__file__).parent
CPU = torch.device("cpu")
PLENTY = MemoryReading(2**40, 2**40)
K = 24
SEQ_LENS, EXTENDED = (70, 3, 128, 40), (20, 3, 9, 30)
ROWS = sum(EXTENDED)


@pytest.fixture(autouse=True)
def _nothing_is_kept_or_said(monkeypatch):
    forget_workspaces()
    monkeypatch.setattr(chunks, "_said", set())
    monkeypatch.setattr(chunked, "_said", set())
    monkeypatch.setattr(chunks, "memory_reading", lambda _: PLENTY)
    monkeypatch.setattr(chunked, "memory_reading", lambda _: MemoryReading(1000, 10, 1))


class Batch:
    """Requests with their keys in a cache; the rows of a prefill of some new tokens of each."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(11)
        self.cache = random_index_k_cache(generator, IndexKLayout(), 8, CPU)
        self.table = torch.tensor([[2, 5], [0, 0], [7, 1], [3, 3]], dtype=torch.int32)
        lens = [torch.tensor(it, dtype=torch.int32) for it in (EXTENDED, SEQ_LENS)]
        self.rows = query_rows(self.table, *lens, rows=ROWS, total_tokens=sum(SEQ_LENS))
        keys, scales = index_gather(self.cache, self.table, lens[1], sum(SEQ_LENS))
        self.keys = GatheredKeys(keys, scales, self.rows.starts, self.rows.ends)
        # Coarse numbers, so that scores tie.
        self.q = torch.randint(-2, 3, (ROWS, 8, 128), generator=generator).to(E4M3)
        self.weights = torch.randn(ROWS, 8, generator=generator)
        self.lens = torch.stack([lens[1] - it for it in (2, 1, 0)], 1).clamp(min=0)
        self.paged_q = torch.randn(4, 3, 8, 128, generator=generator).to(E4M3)
        self.paged_weights = torch.randn(12, 8, generator=generator)

    def prefill(self, rows: slice | torch.Tensor = slice(None)):
        """Arguments for some rows of the prefill."""
        keys = dataclasses.replace(self.keys, starts=self.keys.starts[rows], ends=self.keys.ends[rows])
        return self.q[rows], self.weights[rows], keys, K

    def verification(self):
        """Arguments for three rows of each request, with the keys in the cache."""
        return self.paged_q, self.paged_weights, PagedKeys(self.cache, self.table, self.lens), K


BATCH = Batch()


def whole(arguments):
    selection = index_select(*arguments, memory=PLENTY)
    assert selection.chunks == 1
    return selection.indices


WHOLE, WHOLE_PAGED = whole(BATCH.prefill()), whole(BATCH.verification())


@given(cap=st.integers(1, 3_000_000))
@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_budget_changes_a_bit(cap):
    """Gathered and paged keys, whatever a chunk may take: the rows of one call, to the bit, ties included."""
    with settings.override(mqa_logits_max_chunk_bytes=cap):
        assert torch.equal(index_select(*BATCH.prefill(), memory=PLENTY).indices, WHOLE)
        assert torch.equal(index_select(*BATCH.verification(), memory=PLENTY).indices, WHOLE_PAGED)


@given(cut=st.lists(st.integers(0, ROWS), max_size=6), failing=st.frozensets(st.integers(1, 12), max_size=5))
@hypothesis_settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_memory_that_runs_out_anywhere_changes_no_bit(cut, failing):
    """Rows in any pieces, with top-k failing at any calls: what is done is right, and done once."""
    with out_of_memory("topk", at_calls=failing):
        for first, last in zip([0, *sorted(cut)], [*sorted(cut), ROWS], strict=True):
            with contextlib.suppress(OutOfMemory):
                got = index_select(*BATCH.prefill(slice(first, last)), memory=PLENTY).indices
                assert torch.equal(got, WHOLE[first:last])


@contextlib.contextmanager
def out_of_memory(op: str, *, most_rows: int = 10**9, at_calls: frozenset[int] = frozenset()):
    """An op's backends have memory for so many rows at a time, and none at some calls. Gives the rows of each call."""
    found, calls = backends(op), []
    before = dict(found)

    def failing(backend):
        def run(call):
            rows = (call.logits if op == "topk" else call.q).shape[0]
            calls.append(rows)
            if rows > most_rows or len(calls) in at_calls:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.05 GiB.")
            return backend.run(call)

        return dataclasses.replace(backend, run=run)

    found.update({name: failing(it) for name, it in before.items()})
    forget_decisions()
    try:
        yield calls
    finally:
        found.update(before)
        forget_decisions()


@pytest.mark.parametrize("op", ["mqa_logits", "topk"])
def test_memory_that_runs_out_is_an_event(op, caplog):
    """Half the rows until it fits; the rest at that size; told once, and in the selection and the trace."""
    with out_of_memory(op, most_rows=10) as calls, record_calls() as trace, caplog.at_level(logging.WARNING):
        selection = index_select(*BATCH.prefill(), memory=PLENTY)
        again = index_select(*BATCH.prefill(), memory=PLENTY)
    assert torch.equal(selection.indices, WHOLE)
    assert torch.equal(again.indices, WHOLE)
    assert (selection.chunks, selection.retries) == (9, 3)
    assert calls == 2 * [62, 31, 15, *8 * [7], 6]
    assert len([record for record in caplog.records if "memory ran out" in record.getMessage()]) == 1
    assert [it.retries for it in trace.chunked] == [3, 3]
    assert [(it.rows, it.next_rows) for it in trace.out_of_memory[:3]] == [(62, 31), (31, 15), (15, 7)]
    needed = [it.needed_bytes for it in trace.out_of_memory[:3]]
    assert needed == sorted(needed, reverse=True)


def test_it_runs_out_in_the_middle_of_paged_keys():
    """Requests go with all their rows: what was written before stays, what failed is done again."""
    with out_of_memory("topk", at_calls=frozenset({2, 3})) as calls, record_calls() as trace:
        cap = trace_cap(BATCH.verification(), requests=2)
        trace.chunked.clear()
        with settings.override(mqa_logits_max_chunk_bytes=cap):
            calls.clear()
            selection = index_select(*BATCH.verification(), memory=PLENTY)
    assert calls == [6, 6, 3, 3, 3]
    assert torch.equal(selection.indices, WHOLE_PAGED)
    assert (selection.chunks, selection.retries) == (3, 2)
    assert [(it.rows, it.next_rows) for it in trace.out_of_memory] == [(6, 3), (3, 3)]


def trace_cap(arguments, requests: int) -> int:
    """A budget for so many requests."""
    with record_calls() as trace:
        index_select(*arguments, memory=PLENTY)
    (call,) = trace.chunked
    units = arguments[0].shape[0]
    return call.least_bytes + (call.chunk_bytes - call.least_bytes) * (requests - 1) // (units - 1)


def test_no_memory_at_all_is_an_error_with_numbers():
    """Of a row at a time, with everything released; what was kept is not."""
    words = "index_select: out of memory on cpu with 1 row at a time"
    with out_of_memory("topk", most_rows=0), pytest.raises(OutOfMemory, match=words) as it:
        index_select(*BATCH.prefill(), memory=PLENTY)
    assert (it.value.rows, it.value.free_bytes, it.value.retries) == (1, 10, 6)
    assert kept_bytes() == 0
    assert torch.equal(index_select(*BATCH.prefill(), memory=PLENTY).indices, WHOLE)


def test_a_capture_and_the_setting_leave_the_error_alone(monkeypatch):
    """Nothing is tried again; the error says why."""
    with out_of_memory("topk", most_rows=10) as calls:
        with settings.override(retry_out_of_memory=False), pytest.raises(torch.OutOfMemoryError):
            index_select(*BATCH.prefill(), memory=PLENTY)
        monkeypatch.setattr("dsa_exec.ops.index_select.is_capturing", lambda _: True)
        with pytest.raises(torch.OutOfMemoryError) as caught:
            index_select(*BATCH.prefill(), memory=PLENTY)
    assert calls == [62, 62]
    assert "a graph is being captured" in caught.value.__notes__[0]


def test_T8_a_budget_below_a_row_is_told_once_with_numbers(caplog):
    """T8: it is exceeded row by row, not silently: in the log once, in every selection and in the trace."""
    with settings.override(mqa_logits_max_chunk_bytes=4000), record_calls() as trace:
        for _ in range(2):
            selection = index_select(*BATCH.prefill(), memory=PLENTY)
            assert torch.equal(selection.indices, WHOLE)
            assert (selection.chunks, selection.is_over_budget) == (ROWS, True)
    (record,) = [it for it in caplog.records if it.levelname == "WARNING"]
    said = record.getMessage()
    assert f"index_select on cpu: a row may take {selection.least_bytes} bytes" in said
    assert "more than the budget of 4000" in said
    assert "4000 by mqa_logits_max_chunk_bytes" in said
    assert f"{selection.budget.static_bytes} as a share of total memory" in said
    assert all(call.least_bytes == selection.least_bytes > call.budget.bytes for call in trace.chunked)


def test_T8_few_logits_are_not_asked_for_but_bounded(monkeypatch):
    """T8: below 8,000,000 logits the driver is not asked; the static budget and the cap bound the rows all the same."""
    assert [asks_for_free_memory(rows, 131072) for rows in (61, 62)] == [False, True]
    assert 61 * 131072 == 7995392
    assert 62 * 131072 == 8126464
    asked = []
    monkeypatch.setattr(chunks, "memory_reading", lambda device: asked.append(device) or PLENTY)
    monkeypatch.setattr(chunks, "total_memory_bytes", lambda _: 10**7)
    with settings.override(mem_fraction_static=0.875, mqa_logits_free_mem_fraction=0.5):
        selection = index_select(*BATCH.prefill())
    assert asked == []
    assert (selection.budget.bytes, selection.budget.live_bytes) == (625_000, None)
    assert selection.chunks > 1
    with settings.override(mqa_logits_max_chunk_bytes=300_000):
        capped = index_select(*BATCH.prefill())
    assert (asked, capped.budget.bytes) == ([], 300_000)
    assert capped.chunks > selection.chunks
    with out_of_memory("mqa_logits", most_rows=40):
        assert torch.equal(index_select(*BATCH.prefill()).indices, WHOLE)
    monkeypatch.setattr(budgets, "ASKED_ELEMENTS", ROWS * sum(SEQ_LENS))
    assert index_select(*BATCH.prefill()).budget.live_bytes is not None
    assert asked == [CPU]


def test_the_driver_is_asked_once_a_call(monkeypatch):
    """However many chunks there are."""
    asked = []
    monkeypatch.setattr(budgets, "ASKED_ELEMENTS", 1)
    monkeypatch.setattr(chunks, "memory_reading", lambda device: asked.append(device) or PLENTY)
    with settings.override(mqa_logits_max_chunk_bytes=500_000):
        assert index_select(*BATCH.prefill()).chunks > 1
    assert asked == [CPU]


def test_T9_what_the_allocator_and_the_workspace_hold_counts_and_a_cap_bounds_it(monkeypatch):
    """T9: reusable memory is available, our own workspace too, so that a budget does not shrink by what it gave out."""
    reading = MemoryReading(10**9, 100_000, 400_000)
    budget = logits_budget(reading, free_mem_fraction=0.5)
    assert budget.live_bytes == 250_000
    assert logits_budget(reading, free_mem_fraction=0.5, max_chunk_bytes=1000).bytes == 1000
    monkeypatch.setattr(budgets, "ASKED_ELEMENTS", 1)
    monkeypatch.setattr(chunks, "memory_reading", lambda _: reading)
    first = index_select(*BATCH.prefill()).budget
    held = kept_bytes(CPU)
    assert held > 0
    assert (first.live_bytes, index_select(*BATCH.prefill()).budget.live_bytes) == (100_000, (500_000 + held) // 5)


def test_what_rocm_addresses_bounds_a_tensor():
    """2**31 - 1 bytes, from the facts about the hardware; nothing where all can be addressed."""
    hip = Capabilities("cuda", "gfx942", "2.11", "3.6", is_hip=True)
    assert hip.most_tensor_bytes == 2**31 - 1
    reading = MemoryReading(2**40, 2**40)
    most = logits_budget(reading, free_mem_fraction=1.0, most_tensor_bytes=hip.most_tensor_bytes)
    assert (most.bytes, most.tensor_bytes) == (2**31 - 1, 2**31 - 1)
    assert most.bytes // (131072 * 4) == 4095
    with assumed(hip), settings.override(topk_backend="torch", mqa_logits_backend="torch"):
        assert index_select(*BATCH.prefill(), memory=reading).budget.bytes == 2**31 - 1
    assert index_select(*BATCH.prefill(), memory=reading).budget.tensor_bytes is None


@pytest.mark.parametrize("cap", [150_000, 10**9])
class TestEveryCaller:
    """T10, T11: each kind of rows is under the budget, through one function."""

    def chunks_of(self, arguments, cap: int):
        with settings.override(mqa_logits_max_chunk_bytes=cap), record_calls() as trace:
            selection = index_select(*arguments, memory=PLENTY)
        (call,) = trace.chunked
        assert call.chunk_bytes <= max(cap, call.least_bytes)
        assert (selection.chunks > 1) == (cap < 10**9)
        return selection.indices

    def test_T10_ragged(self, cap):
        """T10: the rows of a prefill."""
        assert torch.equal(self.chunks_of(BATCH.prefill(), cap), WHOLE)

    def test_T10_paged(self, cap):
        """T10: rows of decode and verification, whose logits are as wide as the page table."""
        assert torch.equal(self.chunks_of(BATCH.verification(), cap), WHOLE_PAGED)

    def test_T10_context_parallel(self, cap):
        """T10: the rows of a rank of two: every second row, or the first and the last quarter."""
        quarters = torch.cat([torch.arange(ROWS // 4), torch.arange(ROWS - ROWS // 4, ROWS)])
        for rows in (torch.arange(0, ROWS, 2), quarters):
            assert torch.equal(self.chunks_of(BATCH.prefill(rows), cap), WHOLE[rows])

    def test_T11_one_request_at_a_time(self, cap):
        """T11: with its own keys alone, as engines do whose kernels take no ragged batch: the same positions."""
        ends = torch.tensor(EXTENDED).cumsum(0).tolist()
        tokens = torch.tensor(SEQ_LENS).cumsum(0).tolist()
        for request, (last, until) in enumerate(zip(ends, tokens, strict=True)):
            rows = slice(last - EXTENDED[request], last)
            own = slice(until - SEQ_LENS[request], until)
            q, weights, keys, k = BATCH.prefill(rows)
            starts, visible = keys.starts - own.start, keys.ends - own.start
            alone = GatheredKeys(keys.keys[own], keys.scales[own], starts, visible)
            with settings.override(mqa_logits_max_chunk_bytes=min(cap, 60_000)):
                got = index_select(q, weights, alone, k, memory=PLENTY)
            assert torch.equal(got.indices, WHOLE[rows])


def test_T11_no_other_code_divides_rows_by_a_budget():
    """T11: budgets become rows in `memory`, and nowhere else; the loop that retries is one as well.

    The specification of attention, which stands below `memory`, has a fixed scratch and no budget.
    """
    guilty = []
    for path in SOURCE.glob("**/*.py"):
        if path.is_relative_to(SOURCE / "memory") or path.is_relative_to(SOURCE / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv | ast.Div):
                if ast.unparse(node.left).startswith("rows_that_fit("):
                    continue  # of that, a multiple
                words = ast.unparse(node.left).lower()
                if any(word in words for word in ("budget", "scratch", "free_bytes", "available", "most_bytes")):
                    guilty.append(f"{path.relative_to(SOURCE)}: {ast.unparse(node)}")
    assert guilty == ["core/attention.py: SCRATCH_BYTES // (indices.shape[1] * d * 4)"]
    catching = [path.name for path in SOURCE.glob("**/*.py") if "is_out_of_memory(" in path.read_text()]
    assert sorted(catching) == ["chunked.py", "out_of_memory.py"]


def test_T12_no_collective_is_called(monkeypatch):
    """T12: ranks have other numbers of chunks: whatever a rank's chunks are, it talks to no other."""
    for name, function in vars(torch.distributed).items():
        if callable(function) and not isinstance(function, type) and not name.startswith("_"):
            monkeypatch.setattr(torch.distributed, name, lambda *_, **__: pytest.fail("a collective was called"))
    for cap in (10**9, 150_000):
        with settings.override(mqa_logits_max_chunk_bytes=cap), out_of_memory("topk", at_calls=frozenset({1})):
            assert torch.equal(index_select(*BATCH.prefill(), memory=PLENTY).indices, WHOLE)
    for folder in ("ops", "dispatch", "memory", "core"):
        for path in (SOURCE / folder).glob("**/*.py"):
            assert "torch.distributed" not in path.read_text(), path


def test_T12_ranks_with_other_memory_select_the_same():
    """T12: of unequal free memory follow unequal chunks, and equal selections."""
    ranks = [index_select(*BATCH.prefill(), memory=MemoryReading(2**40, free)) for free in (2**30, 2_000_000, 1)]
    assert len({rank.chunks for rank in ranks}) == 3
    assert all(torch.equal(rank.indices, WHOLE) for rank in ranks)


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_what_another_call_left_in_the_workspace_is_not_read(poison):
    """Whatever lies there: the selection is the same."""
    for arguments, wanted in ((BATCH.prefill(), WHOLE), (BATCH.verification(), WHOLE_PAGED)):
        workspace = kept_workspace(CPU, on_cuda=False)
        workspace.bound(2**20)
        workspace.logits(1000, 256).fill_(poison)
        assert torch.equal(index_select(*arguments, memory=PLENTY).indices, wanted)


def test_the_workspace_never_holds_more_than_the_budget():
    """It shrinks when there is less, and is what the next call of the thread uses."""
    held = []
    for free in (10**7, 2 * 10**6, 10**6):
        selection = index_select(*BATCH.prefill(), memory=MemoryReading(2**40, free))
        held.append(kept_bytes(CPU))
        assert held[-1] <= selection.budget.bytes
    assert held == sorted(held, reverse=True)
    assert held[0] > held[2] > 0


def test_a_compiled_program_keeps_nothing():
    """Its warm-up may run in the memory of a graph, where nothing of ours may stay."""
    torch._dynamo.reset()
    compiled = torch.compile(lambda: index_select(*BATCH.prefill()).indices, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(), WHOLE)
    assert kept_bytes() == 0
    out = torch.zeros_like(WHOLE)
    into = torch.compile(lambda: index_select(*BATCH.prefill(), out=out).indices, fullgraph=True, backend="aot_eager")
    assert torch.equal(into(), WHOLE)
    assert torch.equal(out, WHOLE)


def test_a_workspace_that_is_not_kept_is_released_too(monkeypatch):
    """In a compiled program, where memory runs out, the failed chunk's logits are let go of before the next try."""
    held = []
    release = LogitsWorkspace.release
    monkeypatch.setattr(LogitsWorkspace, "release", lambda self: (held.append(self.bytes), release(self)))
    with out_of_memory("topk", most_rows=40):
        selection = select_now(*BATCH.prefill(), PLENTY, keeps_workspace=False)
    assert torch.equal(selection.indices, WHOLE)
    assert max(held) > 0
    assert kept_bytes() == 0


def test_another_backend_has_another_footprint():
    """The settings of the ops that a selection is made of change what the next call counts, each where it counts."""
    names = ("mqa_logits_backend", "paged_mqa_logits_backend", "topk_backend")
    least = {}
    for kind, arguments in (("gathered", BATCH.prefill()), ("paged", BATCH.verification())):
        before = index_select(*arguments, memory=PLENTY).least_bytes
        for name in names:
            with settings.override(**{name: "triton"}):
                least[kind, name] = index_select(*arguments, memory=PLENTY).least_bytes - before
        assert index_select(*arguments, memory=PLENTY).least_bytes == before
    assert {key for key, change in least.items() if change < 0} == {
        ("gathered", "mqa_logits_backend"),
        ("paged", "paged_mqa_logits_backend"),
        ("gathered", "topk_backend"),
        ("paged", "topk_backend"),
    }
    assert {change for change in least.values() if change >= 0} == {0}


def test_backends_that_refuse_by_the_number_of_rows(monkeypatch):
    """Where the whole call and a chunk of it would have other backends, what both take is counted."""
    found = backends("topk")
    before = index_select(*BATCH.prefill(), memory=PLENTY).least_bytes
    one = dataclasses.replace(
        found["torch"],
        name="one",
        rank=1,
        refuses=lambda call, _: f"{call.logits.shape[0]} rows" if call.logits.shape[0] > 1 else None,
        footprint=lambda *_: Footprint(fixed_bytes=12345),
    )
    every = {"topk": {"one": one, **found}}
    monkeypatch.setattr("dsa_exec.dispatch.select.backends", lambda op: every.get(op) or backends(op))
    forget_decisions()
    try:
        selection = index_select(*BATCH.prefill(), memory=PLENTY)
    finally:
        forget_decisions()
    assert torch.equal(selection.indices, WHOLE)
    assert selection.least_bytes > before + 12345


def test_what_no_backend_takes_is_told_as_ever():
    """A part that no backend takes is an error of that part's op, when it runs."""
    words = "^mqa_logits: deep_gemm"
    with settings.override(mqa_logits_backend="deep_gemm"), pytest.raises(UnsupportedCall, match=words):
        index_select(*BATCH.prefill(), memory=PLENTY)
