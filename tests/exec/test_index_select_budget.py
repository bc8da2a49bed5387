"""The budget is live: settings and memory are looked at on every call, and results do not depend on chunks."""

from __future__ import annotations

import pytest
import torch

from dsa_config import settings
from dsa_exec import GatheredKeys, MemoryReading, PagedKeys, index_select, record_calls
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.cli.run.traced import logits_use
from dsa_exec.core import hardware
from dsa_exec.core.errors import ShapeError, StrideError
from dsa_exec.core.logits_workspace import LogitsWorkspace
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch import registry
from dsa_exec.dispatch.select import decide
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.memory import logits_budget
from dsa_exec.ops import index_select as index_select_op
from dsa_exec.ops.index_select import chunks, on_torch

ROWS, KEYS = 64, 100
CPU = torch.device("cpu")
PLENTY = MemoryReading(10**9, 10**9)


def taken_by(rows: int, arguments) -> int:
    """What so many rows of a call take, by the backends that are chosen now."""
    call = index_select_op.Call(*arguments, settings.fuse_topk, "auto", LogitsWorkspace(CPU))
    return decide("index_select", call, CPU).footprint.bytes(rows)


@pytest.fixture
def arguments():
    generator = torch.Generator().manual_seed(0)
    keys = GatheredKeys(
        keys=torch.randn(KEYS, 128, generator=generator).to(E4M3),
        scales=torch.rand(KEYS, generator=generator) + 0.1,
        starts=torch.zeros(ROWS, dtype=torch.int32),
        ends=torch.arange(37, 37 + ROWS, dtype=torch.int32),
    )
    q = torch.randn(ROWS, 32, 128, generator=generator).to(E4M3)
    return q, torch.randn(ROWS, 32, generator=generator), keys, 16


def test_T1_every_way_of_changing_a_setting_changes_the_next_call(arguments, monkeypatch):
    """T1: environment, settings.set and settings.override each change the chunk count of the very next call."""
    memory = MemoryReading(total_bytes=10**9, free_bytes=5 * taken_by(8, arguments))

    def count() -> int:
        return index_select(*arguments, memory=memory).chunks

    counts = [count()]
    monkeypatch.setenv("SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION", "0.4")
    counts.append(count())
    settings.set(mqa_logits_free_mem_fraction=0.25)
    counts.append(count())
    with settings.override(mqa_logits_free_mem_fraction=1.0):
        counts.append(count())
    counts.append(count())
    settings.reset()
    counts.append(count())
    monkeypatch.delenv("SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION")
    counts.append(count())
    assert counts == [8, 3, 6, 1, 6, 3, 8]


def test_T2_memory_is_read_on_every_call(arguments, monkeypatch):
    """T2: another reading, another budget; nothing of the last call is kept."""
    readings = [MemoryReading(10**9, taken_by(rows, arguments) * 5) for rows in (64, 16, 1, 64)]
    monkeypatch.setattr(logits_budget, "ASKED_ELEMENTS", 1)
    monkeypatch.setattr(chunks, "memory_reading", lambda _: readings[0])
    counts = []
    index_select_op.kept_workspace(CPU, on_cuda=False).release()
    while readings:
        counts.append(index_select(*arguments).chunks)
        index_select_op.kept_workspace(CPU, on_cuda=False).release()  # which would count as available
        readings.pop(0)
    assert counts == [1, 4, 64, 1]


def test_static_fraction_and_cap_are_live_too(arguments):
    """mem_fraction_static and mqa_logits_max_chunk_bytes change the next call like the fraction does."""
    memory = MemoryReading(total_bytes=20 * taken_by(30, arguments), free_bytes=10**9)
    with settings.override(mem_fraction_static=0.9, mqa_logits_free_mem_fraction=0.5):
        assert index_select(*arguments, memory=memory).chunks == 3
    with settings.override(mqa_logits_max_chunk_bytes=taken_by(10, arguments)):
        selection = index_select(*arguments, memory=memory)
        assert (selection.chunks, selection.budget.cap_bytes) == (7, taken_by(10, arguments))
    assert index_select(*arguments, memory=memory).chunks == 1


def test_the_selection_does_not_depend_on_the_chunks(arguments):
    """One row at a time, seven at a time or all at once: the same to the bit."""
    whole = index_select(*arguments, memory=PLENTY)
    assert whole.chunks == 1
    for rows in (1, 7, 63):
        with settings.override(mqa_logits_max_chunk_bytes=taken_by(rows, arguments)):
            parts = index_select(*arguments, memory=PLENTY)
        assert parts.chunks == -(-ROWS // rows)
        assert torch.equal(parts.indices, whole.indices)


def test_capture_takes_the_static_budget_without_asking_the_driver(arguments, monkeypatch):
    """While a graph is captured, free memory is neither asked for nor used, and nothing is kept."""

    def must_not_be_called(_: torch.device) -> MemoryReading:
        raise AssertionError("the driver was asked during capture")

    total = 20 * taken_by(30, arguments)
    monkeypatch.setattr(index_select_op, "is_capturing", lambda _: True)
    monkeypatch.setattr(logits_budget, "ASKED_ELEMENTS", 1)
    monkeypatch.setattr(chunks, "memory_reading", must_not_be_called)
    monkeypatch.setattr(chunks, "total_memory_bytes", lambda _: total)
    index_select_op.kept_workspace(CPU, on_cuda=False).release()
    with settings.override(mem_fraction_static=0.9, mqa_logits_free_mem_fraction=0.5):
        selection = index_select(*arguments)
    assert selection.budget.live_bytes is None
    assert selection.chunks == 3
    assert index_select_op.kept_workspace(CPU, on_cuda=False).bytes == 0


def test_the_trace_shows_budget_and_chunks(arguments):
    """A report can tell rows, chunks and budget of every call, and which backends ran how often."""
    budget = taken_by(12, arguments)
    memory = MemoryReading(10**9, 5 * budget)
    with record_calls() as trace:
        index_select(*arguments, memory=memory)
    (call,) = trace.chunked
    assert (call.rows, call.chunks, call.row_bytes, call.retries) == (64, 6, 400, 0)
    assert call.chunk_bytes <= call.budget.live_bytes == budget
    assert call.least_bytes == taken_by(1, arguments)
    assert {op: count for (op, _), (_, count) in trace.decisions.items()} == {
        "index_select": 1,
        "mqa_logits": 6,
        "topk": 6,
    }


def test_a_result_can_be_given(arguments, paged):
    """`out` is what comes back, with the same numbers, in one chunk and in several; other shapes are refused."""
    for given in (arguments, paged):
        wanted = index_select(*given, memory=PLENTY).indices
        for cap in (0, taken_by(1, given)):
            out = torch.full((wanted.shape[0], 20), 7, dtype=torch.int32)[:, : wanted.shape[1]]
            with settings.override(mqa_logits_max_chunk_bytes=cap):
                selection = index_select(*given, memory=PLENTY, out=out)
            assert selection.indices is out
            assert torch.equal(out, wanted)
        with pytest.raises(ShapeError, match="index_select: out has shape"):
            index_select(*given, out=wanted[:, 1:])
        with pytest.raises(StrideError, match="rows at least 16 elements apart"):
            index_select(*given, out=wanted[:1].expand(wanted.shape[0], 16))


@pytest.fixture
def paged():
    """Three requests of two rows over two pages: a row's logits take 512 bytes."""
    generator = torch.Generator().manual_seed(0)
    cache = random_index_k_cache(generator, IndexKLayout(), 4, torch.device("cpu"))
    table = torch.tensor([[0, 1], [2, 3], [1, 2]], dtype=torch.int32)
    q = torch.randn(3, 2, 8, 128, generator=generator).to(E4M3)
    return q, torch.randn(6, 8, generator=generator), PagedKeys(cache, table, torch.full((3, 2), 100).int()), 16


def test_the_rows_of_a_request_are_counted_together(paged):
    """The smallest chunk of paged keys is a request with all its rows, and a budget below that is told as such."""
    two, one = (taken_by(rows, paged) for rows in (4, 2))
    for cap, count, is_too_small in ((two, 2, False), (one, 3, False), (one - 1, 3, True), (512, 3, True)):
        with settings.override(mqa_logits_max_chunk_bytes=cap), record_calls() as trace:
            selection = index_select(*paged, memory=PLENTY)
        assert (selection.chunks, selection.is_over_budget) == (count, is_too_small)
        (call,) = trace.chunked
        assert (call.rows, call.row_bytes, call.least_bytes) == (6, 512, one)
        report = logits_use(trace)
        assert report is not None
        assert report.is_too_small == is_too_small


def test_the_smallest_chunk_of_gathered_keys_is_a_row(arguments):
    """So that a budget of a row is not too small."""
    with settings.override(mqa_logits_max_chunk_bytes=taken_by(1, arguments)), record_calls() as trace:
        selection = index_select(*arguments, memory=PLENTY)
    (call,) = trace.chunked
    assert (call.least_bytes, call.chunks, selection.is_over_budget) == (taken_by(1, arguments), ROWS, False)


@pytest.mark.parametrize("fuse_topk", [True, False])
def test_fuse_topk_says_who_maps_positions_to_slots(paged, monkeypatch, fuse_topk):
    """Top-k is given the page table only where the setting asks for it; the slots are the same."""
    expected = index_select(*paged).indices
    given = []

    def op_function(op: str):
        function = registry.op_function(op)

        def call(*args, **kwargs):
            given.append((op, "slot_map" in kwargs))
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(on_torch, "op_function", op_function)
    with settings.override(fuse_topk=fuse_topk):
        assert torch.equal(index_select(*paged).indices, expected)
    assert given == [("paged_mqa_logits", False), ("topk", fuse_topk)]


def test_the_machines_own_memory_is_plausible():
    """This machine: something is free, not more than there is; total without asking the driver agrees."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else CPU
    reading = hardware.memory_reading(device)
    assert 0 < reading.free_bytes <= reading.total_bytes
    assert reading.available_bytes == reading.free_bytes + reading.reusable_bytes
    assert hardware.total_memory_bytes(device) == pytest.approx(reading.total_bytes, rel=0.05)
