"""What each backend says that it allocates, beside what it does allocate."""

from __future__ import annotations

import pytest
import torch
from fakes import aiter as rocm
from fakes.deep_gemm import machine
from live_tensors import Watch

from dsa_config import settings
from dsa_exec import (
    GatheredKeys,
    MemoryReading,
    PagedKeys,
    SlotMap,
    index_select,
    mqa_logits,
    paged_mqa_logits,
    record_calls,
    topk,
)
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core import head_padding
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.core.hardware import assumed, capabilities
from dsa_exec.core.logits_workspace import forget_workspaces
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.registry import backend, op_call
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.memory.footprint import Footprint

CPU = torch.device("cpu")
PAGES = 10
LAYOUTS = {
    "plain": IndexKLayout(),
    "preshuffled": IndexKLayout(order="preshuffled"),
    "page 1": IndexKLayout(page_tokens=1),
    "model": IndexKLayout(format="model", element_bytes=4),
}


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch):
    monkeypatch.setattr(head_padding, "_buffers", head_padding._Buffers())
    forget_workspaces()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def gathered(rows: int, width: int = 640, heads: int = 32, dtype: torch.dtype = E4M3):
    """Queries with gaps between them, head weights and keys of a prefill in which every row sees all."""
    q = torch.randn(rows, heads, 144, generator=generator()).to(dtype)[..., :128]
    scales = torch.rand(width, generator=generator()) if dtype is E4M3 else None
    bounds = torch.zeros(rows, dtype=torch.int32), torch.full((rows,), width, dtype=torch.int32)
    keys = GatheredKeys(torch.randn(width, 128, generator=generator()).to(dtype), scales, *bounds)
    return q, torch.randn(rows, heads, generator=generator()), keys


def paged(requests: int, next_n: int = 1, layout: IndexKLayout = LAYOUTS["plain"], heads: int = 32):
    """Queries, head weights and keys of requests that have pages for 640 tokens."""
    pages = PAGES * 64 // layout.page_tokens
    cache = random_index_k_cache(generator(), layout, pages, CPU)
    table = torch.arange(pages, dtype=torch.int32).expand(requests, pages).contiguous()
    lens = torch.full((requests, next_n), PAGES * 64, dtype=torch.int32)
    dtype = E4M3 if layout.format == "fp8" else torch.float32
    q = torch.randn(requests, next_n, heads, 144, generator=generator()).to(dtype)[..., :128]
    return q, torch.randn(requests * next_n, heads, generator=generator()), PagedKeys(cache, table, lens)


def peak_of(function, *args, **named) -> int:
    function(*args, **named)  # what is made once
    head_padding._buffers.kept.clear()
    with Watch() as watch:
        function(*args, **named)
    return watch.peak_bytes


def expect_told(footprint: Footprint, rows: int, peak: int, *, least_share: float = 0.4) -> None:
    """A footprint covers what was measured, and is not much more."""
    told = footprint.bytes(rows)
    assert peak <= told, f"{peak} bytes, {told} were told"
    assert peak >= told * least_share, f"{peak} bytes, {told} were told"


@pytest.mark.parametrize("dtype", [E4M3, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 7, 200])
def test_mqa_logits_in_torch(rows, dtype):
    """Keys in f32, then one head's products for every row."""
    q, weights, keys = gathered(rows, dtype=dtype)
    args = q, keys.keys, keys.scales, weights, keys.starts, keys.ends
    call = op_call("mqa_logits")(*args, False, None)
    out = torch.empty(rows, 640)
    with settings.override(mqa_logits_backend="torch"):
        peak = peak_of(mqa_logits, *args, clean=False, out=out)
    expect_told(backend("mqa_logits", "torch").footprint(call, capabilities(CPU)), rows, peak)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize(("requests", "next_n"), [(1, 1), (3, 1), (2, 4)])
def test_paged_mqa_logits_in_torch(requests, next_n, layout):
    """A request at a time: the rows of others take nothing."""
    q, weights, keys = paged(requests, next_n, layout)
    args = q, keys.cache, weights, keys.context_lens, keys.page_table, PAGES * 64
    call = op_call("paged_mqa_logits")(*args, False, None)
    out = torch.empty(requests * next_n, PAGES * 64)
    with settings.override(paged_mqa_logits_backend="torch"):
        peak = peak_of(paged_mqa_logits, *args, clean=False, out=out)
    expect_told(backend("paged_mqa_logits", "torch").footprint(call, capabilities(CPU)), requests * next_n, peak)


@pytest.mark.parametrize("to_slots", [False, True])
@pytest.mark.parametrize("k", [16, 600, 2048])
@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("scratch_bytes", [2**26, 150_000])
def test_T6_topk_in_torch(rows, k, to_slots, scratch_bytes, monkeypatch):
    """T6: its masks and masked copies are told, and are of some rows at a time."""
    monkeypatch.setattr("dsa_exec.ops.topk.on_torch.SCRATCH_BYTES", scratch_bytes)
    logits, lengths = torch.randn(rows, 640, generator=generator()), torch.full((rows,), 640, dtype=torch.int32)
    table = torch.arange(PAGES, dtype=torch.int32)[None]
    slot_map = SlotMap(table, 64, torch.zeros(rows, dtype=torch.int64)) if to_slots else None
    call = op_call("topk")(logits, lengths, k, None, slot_map)
    with settings.override(topk_backend="torch"):
        peak = peak_of(topk, logits, lengths, k, slot_map=slot_map)
    footprint = backend("topk", "torch").footprint(call, capabilities(CPU))
    expect_told(footprint, rows, peak, least_share=0.25)
    ((_, at_once),) = footprint.streamed
    assert at_once >= rows or footprint.bytes(rows) - rows * k * 4 <= max(scratch_bytes, footprint.bytes(1))


@pytest.mark.parametrize("name", ["triton", "gluon"])
def test_kernels_of_ours_allocate_their_result_alone(name):
    """Logits are written into what is given; top-k has what it picks."""
    q, weights, keys = gathered(3)
    requests = paged(3)
    calls = {
        "mqa_logits": (q, keys.keys, keys.scales, weights, keys.starts, keys.ends, False, None),
        "paged_mqa_logits": (
            *(requests[0], requests[2].cache, requests[1]),
            *(requests[2].context_lens, requests[2].page_table, 640, False, None),
        ),
        "topk": (torch.zeros(3, 640), keys.ends, 16, None, None),
    }
    told = {op: backend(op, name).footprint(op_call(op)(*args), capabilities(CPU)) for op, args in calls.items()}
    assert told == {"mqa_logits": Footprint(), "paged_mqa_logits": Footprint(), "topk": Footprint(row_bytes=64)}
    if name == "triton" and torch.version.hip is None:
        out, lengths = torch.empty(3, 640), keys.ends
        with settings.override(mqa_logits_backend="triton", topk_backend="triton"):
            checks = 9  # what checking the bounds takes on the CPU
            assert peak_of(mqa_logits, *calls["mqa_logits"][:6], clean=False, out=out) <= checks
            assert peak_of(topk, torch.zeros(3, 640), lengths, 16) == 3 * 64


def allocated(rows: int, stride: int) -> torch.Tensor:
    return torch.empty(rows, stride)


@pytest.mark.parametrize(("heads", "taken"), [(64, 64), (32, 32), (20, 32)])
@pytest.mark.parametrize(("rows", "width"), [(1, 640), (7, 641), (33, 512)])
def test_T7_mqa_logits_by_deep_gemm(rows, width, heads, taken):
    """T7: the first generation allocates align(rows, 128 / heads) x align(keys + 256, 256) x 4 bytes itself."""
    hw, _ = machine("sm90")
    library = hw.library("deep_gemm").module
    blocks, columns = -(-rows // (128 // taken)) * (128 // taken), -(-(width + 256) // 256) * 256
    library.fp8_mqa_logits = lambda q, *_, **__: allocated(blocks, columns)[: q.shape[0], :width]
    q, weights, keys = gathered(rows, width, heads)
    args = q, keys.keys, keys.scales, weights, keys.starts, keys.ends
    with assumed(hw), settings.override(mqa_logits_backend="deep_gemm"):
        peak = peak_of(mqa_logits, *args, clean=False)
    footprint = backend("mqa_logits", "deep_gemm").footprint(op_call("mqa_logits")(*args, False, None), hw)
    assert (footprint.own_row_bytes, footprint.own_row_multiple) == (columns * 4, 128 // taken)
    own = footprint.bytes(rows) - footprint.row_bytes * rows - footprint.fixed_bytes
    assert own == blocks * columns * 4
    expect_told(footprint, rows, peak)


@pytest.mark.parametrize("scratch_bytes", [2**28, 100_000])
@pytest.mark.parametrize("rows", [1, 33, 100])
def test_mqa_logits_by_deep_gemm_whose_rows_begin_with_the_first_key(rows, scratch_bytes, monkeypatch):
    """The second generation's logits are put into what is given, some rows at a time."""
    monkeypatch.setattr("dsa_exec.ops.mqa_logits.on_deep_gemm.SCRATCH_BYTES", scratch_bytes)
    hw, _ = machine("sm90", 2)
    hw.library("deep_gemm").module.fp8_fp4_mqa_logits = lambda q, *_: allocated(-(-q[0].shape[0] // 4) * 4, 768)[
        : q[0].shape[0], :640
    ]
    q, weights, keys = gathered(rows)
    args = q, keys.keys, keys.scales, weights, keys.starts, keys.ends
    out = torch.empty(rows, 640)
    with assumed(hw), settings.override(mqa_logits_backend="deep_gemm"):
        peak = peak_of(mqa_logits, *args, clean=False, out=out)
    footprint = backend("mqa_logits", "deep_gemm").footprint(op_call("mqa_logits")(*args, False, None), hw)
    assert footprint.own_row_bytes == 0
    expect_told(footprint, rows, peak, least_share=0.2)


@pytest.mark.parametrize("heads", [64, 20])
@pytest.mark.parametrize(("requests", "next_n"), [(1, 1), (5, 1), (3, 4)])
def test_T5_paged_mqa_logits_by_deep_gemm(requests, next_n, heads):
    """T5: logits in multiples of 256 columns, and the page tables that each row is given a copy of, are counted."""
    hw, _ = machine("sm90")
    columns = -(-PAGES * 64 // 256) * 256
    hw.library("deep_gemm").module.fp8_paged_mqa_logits = lambda q, *_, **__: allocated(
        q.shape[0] * q.shape[1], columns
    )[:, : PAGES * 64]
    q, weights, keys = paged(requests, next_n, heads=heads)
    args = q, keys.cache, weights, keys.context_lens, keys.page_table, PAGES * 64
    with assumed(hw), settings.override(paged_mqa_logits_backend="deep_gemm"):
        peak = peak_of(paged_mqa_logits, *args, clean=False)
    footprint = backend("paged_mqa_logits", "deep_gemm").footprint(op_call("paged_mqa_logits")(*args, False, None), hw)
    assert footprint.own_row_bytes == columns * 4
    assert footprint.row_bytes >= keys.page_table.shape[1] * 4
    expect_told(footprint, requests * next_n, peak, least_share=0.3)


def test_T5_no_row_of_a_long_table_is_copied_by_our_own_kernels():
    """T5: pages of one token make a table as wide as the logits. Top-k looks slots up in it; it is not gathered."""
    for layout in (LAYOUTS["page 1"], LAYOUTS["plain"]):
        _, _, keys = paged(8, 2, layout)
        call = op_call("topk")(torch.zeros(16, 640), keys.context_lens.flatten(), 16, None, slots_of(keys))
        told = backend("topk", "triton").footprint(call, capabilities(CPU))
        assert told.bytes(16) == 16 * 16 * 4
        with settings.override(topk_backend="triton"):
            assert peak_of(topk, call.logits, call.lengths, 16, slot_map=call.slot_map) == told.bytes(16)


def slots_of(keys: PagedKeys) -> SlotMap:
    rows = torch.arange(keys.context_lens.numel()) // keys.context_lens.shape[1]
    return SlotMap(keys.page_table, keys.cache.layout.page_tokens, rows, keys.cache.slots)


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("heads", [32, 20])
@pytest.mark.parametrize("rows", [1, 33])
def test_mqa_logits_by_aiter(rows, heads, arch, monkeypatch):
    """It allocates rows of multiples of 256 logits itself; on gfx942 operands are converted."""
    monkeypatch.setattr(
        "dsa_exec.ops.mqa_logits.on_aiter.aiter_function",
        lambda *_: lambda q, *_, **__: allocated(q.shape[0], 768)[:, :641],
    )
    hw = rocm_machine(arch)
    q, weights, keys = gathered(rows, 641, heads)
    args = q, keys.keys, keys.scales, weights, keys.starts, keys.ends
    with assumed(hw), settings.override(mqa_logits_backend="aiter", use_aiter=True):
        peak = peak_of(mqa_logits, *args, clean=False)
    footprint = backend("mqa_logits", "aiter").footprint(op_call("mqa_logits")(*args, False, None), hw)
    assert footprint.own_row_bytes == 768 * 4
    expect_told(footprint, rows, peak, least_share=0.3)


@pytest.mark.parametrize("scratch_bytes", [2**26, 4 * 640 * 8])
@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize(("requests", "next_n"), [(1, 1), (9, 1), (3, 4)])
def test_T5_paged_mqa_logits_by_aiter(requests, next_n, arch, scratch_bytes, monkeypatch):
    """T5: the tables that are gathered for its rows are counted, and are of some rows at a time."""
    monkeypatch.setattr("dsa_exec.ops.paged_mqa_logits.on_aiter.aiter_function", lambda *_: lambda *_, **__: None)
    monkeypatch.setattr("dsa_exec.ops.paged_mqa_logits.on_aiter.SCRATCH_BYTES", scratch_bytes)
    hw = rocm_machine(arch)
    q, weights, keys = paged(requests, next_n, IndexKLayout(page_tokens=1, unsigned_zero=True), heads=20)
    rows = requests * next_n
    args = q, keys.cache, weights, keys.context_lens, keys.page_table, 640
    with assumed(hw), settings.override(paged_mqa_logits_backend="aiter", use_aiter=True):
        try:
            peak = peak_of(paged_mqa_logits, *args, clean=False, out=torch.empty(rows, 640))
        except UnsupportedCall as refusal:
            pytest.fail(str(refusal))
    footprint = backend("paged_mqa_logits", "aiter").footprint(op_call("paged_mqa_logits")(*args, False, None), hw)
    assert footprint.bytes(1) >= 640 * 4
    expect_told(footprint, rows, peak, least_share=0.3)


@pytest.mark.parametrize("scratch_bytes", [2**28, 10_000])
@pytest.mark.parametrize("to_slots", [False, True])
@pytest.mark.parametrize("rows", [1, 40])
def test_T6_topk_by_aiter(rows, to_slots, scratch_bytes, monkeypatch):
    """T6: the copy of the rows that it is given is counted, and is of some rows at a time."""
    monkeypatch.setattr("dsa_exec.ops.topk.on_aiter.aiter_function", lambda *_: lambda *_, **__: None)
    monkeypatch.setattr("dsa_exec.ops.topk.on_aiter.SCRATCH_BYTES", scratch_bytes)
    hw = rocm_machine("gfx942")
    logits, lengths = torch.randn(rows, 641, generator=generator()), torch.full((rows,), 640, dtype=torch.int32)
    table = torch.arange(PAGES, dtype=torch.int32)[None]
    slot_map = SlotMap(table, 64, torch.zeros(rows, dtype=torch.int64)) if to_slots else None
    with assumed(hw), settings.override(topk_backend="aiter", use_aiter=True):
        peak = peak_of(topk, logits, lengths, 100, slot_map=slot_map)
    footprint = backend("topk", "aiter").footprint(op_call("topk")(logits, lengths, 100, None, slot_map), hw)
    expect_told(footprint, rows, peak, least_share=0.3)


def rocm_machine(arch: str):
    hw, _ = rocm.machine(arch)
    return hw


@pytest.mark.parametrize("fuse_topk", [True, False])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("kind", ["gathered", "decode", "verify"])
def test_a_selection_keeps_to_what_was_planned(kind, chunked, fuse_topk):
    """All that lives at once beside the result is within what the plan says, and that within the budget.

    What scoring and top-k take beside the logits is added up, though they come one after the other.
    """
    arguments = {"gathered": lambda: gathered(60), "decode": lambda: paged(30), "verify": lambda: paged(15, 4)}[kind]()
    rows, k = arguments[1].shape[0], 64
    with settings.override(fuse_topk=fuse_topk), record_calls() as trace:
        index_select(*arguments, k, memory=MemoryReading(10**9, 10**9))
        (whole,) = trace.chunked
        cap = (whole.least_bytes + whole.chunk_bytes) // 2 if chunked else 10**9
        forget_workspaces()
        with settings.override(mqa_logits_max_chunk_bytes=cap), Watch() as watch:
            selection = index_select(*arguments, k, memory=MemoryReading(10**9, 10**9))
    call = trace.chunked[-1]
    assert (selection.chunks > 1) == chunked
    assert call.chunk_bytes <= cap
    assert watch.peak_bytes - rows * k * 4 <= call.chunk_bytes
    assert watch.peak_bytes >= call.chunk_bytes * 0.25
