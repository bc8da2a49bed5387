"""On a GPU: selections with little memory left are right and keep to the budget, whoever else takes memory."""

from __future__ import annotations

import contextlib
import threading
import time
from unittest import mock

import pytest
import torch

from dsa_config import settings
from dsa_exec import GatheredKeys, MemoryReading, PagedKeys, index_select, record_calls
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.errors import OutOfMemory, UnsupportedCall
from dsa_exec.core.hardware import memory_reading
from dsa_exec.core.logits_workspace import forget_workspaces, kept_bytes
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.chunked import run_in_chunks
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.index_select import chunks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.whole_device,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

MIB = 2**20
ROWS, KEYS, HEADS, K = 2048, 32_768, 64, 512
SCORERS = ("gluon", "triton", "deep_gemm")


@pytest.fixture(scope="module")
def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device())


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    forget_workspaces()
    yield
    forget_workspaces()
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def prefill(device):
    """Arguments of a selection of 256 MiB of logits, and the memory for its result."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    ends = torch.arange(KEYS - ROWS + 1, KEYS + 1, device=device, dtype=torch.int32)
    keys = GatheredKeys(normal(KEYS, 128).to(E4M3), normal(KEYS).abs(), torch.zeros_like(ends), ends)
    arguments = normal(ROWS, HEADS, 128).to(E4M3), normal(ROWS, HEADS), keys, K
    return arguments, torch.empty(ROWS, K, dtype=torch.int32, device=device)


@pytest.fixture(scope="module")
def decode(device):
    """Arguments of a selection for 48 requests of two rows over 32768 tokens."""
    generator = torch.Generator().manual_seed(0)
    pages = KEYS // 64
    cache = random_index_k_cache(generator, IndexKLayout(), pages, device)
    table = torch.randperm(pages, generator=generator).to(torch.int32).expand(48, pages).contiguous().to(device)
    lens = torch.randint(1, KEYS, (48, 1), generator=generator).expand(48, 2).contiguous().to(device, torch.int32)
    q = torch.randn(48, 2, HEADS, 128, generator=generator).to(E4M3).to(device)
    return q, torch.randn(96, HEADS, generator=generator).to(device), PagedKeys(cache, table, lens), K


@contextlib.contextmanager
def left(bytes_left: int, device: torch.device):
    """This process may take so many bytes more of the device; other processes may use it meanwhile."""
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info(device)[1]
    held = []
    try:
        # What is unused in segments that other tensors hold is room too, and is taken first.
        size = torch.cuda.memory_reserved(device)
        torch.cuda.set_per_process_memory_fraction(size / total, device)
        while size >= MIB:
            try:
                held.append(torch.empty(size, dtype=torch.uint8, device=device))
            except torch.OutOfMemoryError:
                size //= 2
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + bytes_left) / total, device)
        yield
    finally:
        held.clear()
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()


def scored_by(name: str):
    """Settings that have a backend score, ragged and paged."""
    return settings.override(mqa_logits_backend=name, paged_mqa_logits_backend=name)


def expect_within(arguments, out, device, wanted):
    """Select into `out`: the same to the bit, and all that was allocated for it is within the budget."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device) - kept_bytes(device)

    def loop(*given, **named):
        torch.cuda.reset_peak_memory_stats(device)  # what was kept and is too large now has been let go
        return run_in_chunks(*given, **named)

    out.fill_(-7)
    with mock.patch.object(chunks, "run_in_chunks", loop):
        selection = index_select(*arguments, out=out)
    torch.cuda.synchronize(device)
    extra = torch.cuda.max_memory_allocated(device) - before
    assert torch.equal(out.cpu(), wanted.cpu())
    assert extra <= selection.budget.bytes
    return selection


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("mib", [256, 64])
def test_a_squeeze(prefill, device, scorer, mib):
    """With all but so much taken: right, within the budget, and without running out of memory."""
    arguments, out = prefill
    with scored_by(scorer):
        try:
            wanted = index_select(*arguments).indices.cpu()  # in no segment of the device, which it would hold
        except UnsupportedCall as refusal:
            pytest.skip(str(refusal))
        forget_workspaces()
        with left(mib * MIB, device):
            available = memory_reading(device).available_bytes
            selection = expect_within(arguments, out, device, wanted)
    assert available < (mib + 64) * MIB
    assert selection.budget.live_bytes <= available // 5 + 1
    assert selection.chunks > 1


def test_a_squeeze_that_tightens_between_calls(prefill, device):
    """What is kept for the next call is let go as far as the next budget is smaller."""
    arguments, out = prefill
    wanted, kept = index_select(*arguments).indices.cpu(), []
    for mib in (512, 160, 96, 48):
        # Apart: on Hopper the kernel that writes no logits would be taken, and nothing would be kept.
        with left(mib * MIB - kept_bytes(device), device), settings.override(index_select_backend="torch"):
            selection = expect_within(arguments, out, device, wanted)
            kept.append(kept_bytes(device))
            assert kept[-1] <= selection.budget.bytes
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[-1] > 0


def test_a_squeeze_during_a_call(prefill, device, monkeypatch, caplog):
    """Another thread takes what is free on a stream of its own, right after the budget was made: fewer rows, told."""
    arguments, out = prefill
    wanted = index_select(*arguments).indices.cpu()
    forget_workspaces()
    held = []

    def take():
        with torch.cuda.stream(torch.cuda.Stream(device)):
            size = memory_reading(device).free_bytes - 24 * MIB
            held.append(torch.empty(size, dtype=torch.uint8, device=device))

    def reading(where):
        told = memory_reading(where)
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
        return told

    monkeypatch.setattr(chunks, "memory_reading", reading)
    with left(256 * MIB, device), record_calls() as trace:
        selection = index_select(*arguments, out=out)
        held.clear()
    assert torch.equal(out.cpu(), wanted)
    assert selection.retries > 0
    assert len(trace.out_of_memory) == selection.retries
    assert trace.out_of_memory[0].memory.free_bytes < 64 * MIB


def test_another_stream_that_takes_and_gives_back_all_the_time(prefill, device):
    """Whatever it holds at which moment: no error, and the same selections."""
    arguments, out = prefill
    wanted = index_select(*arguments).indices
    ended = threading.Event()

    def take_and_give():
        with torch.cuda.stream(torch.cuda.Stream(device)):
            while not ended.is_set():
                with contextlib.suppress(torch.OutOfMemoryError):
                    held = torch.empty(180 * MIB, dtype=torch.uint8, device=device)
                    time.sleep(0.002)
                    del held
                time.sleep(0.001)

    thread = threading.Thread(target=take_and_give)
    with left(256 * MIB, device):
        thread.start()
        try:
            for _ in range(20):
                out.fill_(-7)
                index_select(*arguments, out=out)
                assert torch.equal(out, wanted)
        finally:
            ended.set()
            thread.join()


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_growing_context_does_not_grow_the_allocator(prefill, device, scorer):
    """60 contexts from 1K to 32K: after the first third the allocator holds what it held."""
    (q, weights, keys, k), out = prefill
    reserved = []
    with scored_by(scorer), settings.override(mqa_logits_max_chunk_bytes=64 * MIB):
        for step in range(60):
            context = 1024 + step * 538
            ends = torch.arange(context - ROWS + 1, context + 1, device=device, dtype=torch.int32).clamp_(min=1)
            grown = GatheredKeys(keys.keys[:context], keys.scales[:context], keys.starts, ends)
            try:
                index_select(q, weights, grown, k, out=out)
            except UnsupportedCall as refusal:
                pytest.skip(str(refusal))
            reserved.append(torch.cuda.memory_reserved(device))
    # A tensor below 1 MiB, such as what a small chunk picked, may be the first to ask for a segment of 2 MiB.
    assert max(reserved[20:]) - reserved[19] <= 2 * MIB


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_no_budget_changes_a_bit(prefill, decode, device, kind, scorer):
    """Chunks of one row or request, of some, or all at once: the same to the bit."""
    arguments = of_rows(prefill[0], 70) if kind == "prefill" else decode
    plenty = MemoryReading(2**40, 2**40)
    with scored_by(scorer):
        try:
            wanted = index_select(*arguments, memory=plenty)
        except UnsupportedCall as refusal:
            pytest.skip(str(refusal))
        for cap in (1, 2 * MIB, 3 * MIB):
            with settings.override(mqa_logits_max_chunk_bytes=cap):
                parts = index_select(*arguments, memory=plenty)
            assert parts.chunks > 1
            assert torch.equal(parts.indices, wanted.indices)


def of_rows(arguments, rows: int):
    q, weights, keys, k = arguments
    return q[:rows], weights[:rows], keys.of_rows(slice(0, rows)), k


def test_no_memory_at_all_is_our_error_and_leaves_the_device_usable(prefill, device, monkeypatch):
    """What is needed, what there is, what to change; the next call with memory is right."""
    arguments, out = prefill
    wanted = index_select(*arguments).indices
    forget_workspaces()
    monkeypatch.setattr(chunks, "memory_reading", lambda _: MemoryReading(2**37, 2**36))
    words, held = r"index_select: out of memory on cuda:\d with 1 row at a time", []
    with left(0, device):
        for size in (2**17, 2**9):  # what is unused in blocks that torch shares out
            with contextlib.suppress(torch.OutOfMemoryError):
                while True:
                    held.append(torch.empty(size, dtype=torch.uint8, device=device))
        with pytest.raises(OutOfMemory, match=words) as it:
            index_select(*arguments, out=out)
        held.clear()
    assert it.value.free_bytes < 4 * MIB
    assert isinstance(it.value.__cause__, torch.OutOfMemoryError)
    assert torch.equal(index_select(*arguments).indices, wanted)


def test_the_memory_of_a_capture_is_the_graphs(prefill, device):
    """Nothing of it is kept; a replay does not disturb what is kept, nor the other way."""
    arguments, out = prefill
    arguments = of_rows(arguments, 64)
    out = out[:64]
    wanted = index_select(*arguments, out=out).indices.clone()
    kept = kept_bytes(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = index_select(*arguments, out=out)
    assert captured.budget.live_bytes is None
    assert kept_bytes(device) == kept > 0
    for _ in range(2):
        out.fill_(-7)
        graph.replay()
        assert torch.equal(out, wanted)
        assert torch.equal(index_select(*arguments).indices, wanted)
