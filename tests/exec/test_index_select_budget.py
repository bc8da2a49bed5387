"""The budget is live: settings and memory are looked at on every call, and results do not depend on chunks."""

from __future__ import annotations

import pytest
import torch

from dsa_config import settings
from dsa_exec import GatheredKeys, MemoryReading, PagedKeys, index_select, record_calls
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.cli.run import _logits
from dsa_exec.core import hardware
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch import registry
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops import index_select as index_select_op
from dsa_exec.ops.index_select import on_torch

ROWS, KEYS = 64, 100
ROW_BYTES = KEYS * 4


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


def test_every_way_of_changing_a_setting_changes_the_next_call(arguments, monkeypatch):
    """T1: environment, settings.set and settings.override each change the chunk count of the very next call."""
    memory = MemoryReading(total_bytes=10**9, free_bytes=ROWS * ROW_BYTES)

    def chunks() -> int:
        return index_select(*arguments, memory=memory).chunks

    counts = [chunks()]
    monkeypatch.setenv("SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION", "0.5")
    counts.append(chunks())
    settings.set(mqa_logits_free_mem_fraction=0.25)
    counts.append(chunks())
    with settings.override(mqa_logits_free_mem_fraction=1.0):
        counts.append(chunks())
    counts.append(chunks())
    settings.reset()
    counts.append(chunks())
    monkeypatch.delenv("SGLANG_DSA_MQA_LOGITS_FREE_MEM_FRACTION")
    counts.append(chunks())
    assert counts == [6, 2, 4, 1, 4, 2, 6]


def test_memory_is_read_on_every_call(arguments, monkeypatch):
    """T2: another reading, another budget; nothing of the last call is kept."""
    readings = [MemoryReading(10**9, rows * ROW_BYTES * 5) for rows in (64, 16, 1, 64)]
    monkeypatch.setattr(index_select_op, "memory_reading", lambda _: readings[0])
    counts = []
    while readings:
        counts.append(index_select(*arguments).chunks)
        readings.pop(0)
    assert counts == [1, 4, 64, 1]


def test_static_fraction_and_cap_are_live_too(arguments):
    """mem_fraction_static and mqa_logits_max_chunk_bytes change the next call like the fraction does."""
    memory = MemoryReading(total_bytes=10 * ROWS * ROW_BYTES, free_bytes=10**9)
    with settings.override(mem_fraction_static=0.9, mqa_logits_free_mem_fraction=0.5):
        assert index_select(*arguments, memory=memory).chunks == 3
    with settings.override(mqa_logits_max_chunk_bytes=ROW_BYTES * 10):
        selection = index_select(*arguments, memory=memory)
        assert (selection.chunks, selection.budget.cap_bytes) == (7, ROW_BYTES * 10)
    assert index_select(*arguments, memory=memory).chunks == 1


def test_the_selection_does_not_depend_on_the_chunks(arguments):
    """One row at a time, seven at a time or all at once: the same to the bit."""
    whole = index_select(*arguments, memory=MemoryReading(10**9, 10**9))
    assert whole.chunks == 1
    for rows in (1, 7, 63):
        with settings.override(mqa_logits_max_chunk_bytes=rows * ROW_BYTES):
            parts = index_select(*arguments, memory=MemoryReading(10**9, 10**9))
        assert parts.chunks == -(-ROWS // rows)
        assert torch.equal(parts.indices, whole.indices)


def test_capture_takes_the_static_budget_without_asking_the_driver(arguments, monkeypatch):
    """While a graph is captured, free memory is neither asked for nor used."""

    def must_not_be_called(_: torch.device) -> MemoryReading:
        raise AssertionError("the driver was asked during capture")

    monkeypatch.setattr(index_select_op, "is_capturing", lambda _: True)
    monkeypatch.setattr(index_select_op, "memory_reading", must_not_be_called)
    monkeypatch.setattr(index_select_op, "total_memory_bytes", lambda _: 10 * ROWS * ROW_BYTES)
    with settings.override(mem_fraction_static=0.9, mqa_logits_free_mem_fraction=0.5):
        selection = index_select(*arguments)
    assert selection.budget.live_bytes is None
    assert selection.chunks == 3


def test_the_trace_shows_budget_and_chunks(arguments):
    """A report can tell rows, chunks and budget of every call, and which backends ran how often."""
    memory = MemoryReading(10**9, ROWS * ROW_BYTES)
    with record_calls() as trace:
        index_select(*arguments, memory=memory)
    (call,) = trace.chunked
    assert (call.rows, call.chunks, call.row_bytes, call.budget.live_bytes) == (64, 6, 400, 5120)
    assert {op: count for (op, _), (_, count) in trace.decisions.items()} == {
        "index_select": 1,
        "mqa_logits": 6,
        "topk": 6,
    }


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
    for cap, chunks, is_too_small in ((2 * 1024, 2, False), (1024, 3, False), (1023, 3, True), (512, 3, True)):
        with settings.override(mqa_logits_max_chunk_bytes=cap), record_calls() as trace:
            assert index_select(*paged, memory=MemoryReading(10**9, 10**9)).chunks == chunks
        (call,) = trace.chunked
        assert (call.rows, call.row_bytes, call.least_bytes) == (6, 512, 1024)
        report = _logits(trace)
        assert report is not None
        assert report.is_too_small == is_too_small


def test_the_smallest_chunk_of_gathered_keys_is_a_row(arguments):
    """So that a budget of a row is not too small."""
    with settings.override(mqa_logits_max_chunk_bytes=ROW_BYTES), record_calls() as trace:
        index_select(*arguments, memory=MemoryReading(10**9, 10**9))
    (call,) = trace.chunked
    assert (call.least_bytes, call.chunks) == (ROW_BYTES, ROWS)


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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    reading = hardware.memory_reading(device)
    assert 0 < reading.free_bytes <= reading.total_bytes
    assert reading.available_bytes == reading.free_bytes + reading.reusable_bytes
    assert hardware.total_memory_bytes(device) == pytest.approx(reading.total_bytes, rel=0.05)
