"""Attending in parts, to nothing, in turns, under a compiler and a capture; and what is refused."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from attention_samples import FP8, HEADS, LENS, MODEL, NEW, SCALE, batch, calls, check_same, ints, normal, path
from conformance_suite import DEVICE
from live_tensors import Watch

from dsa_exec.caches.samples import POISON
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import ArgumentError, LayoutError
from dsa_exec.runtime import attend as attend_module
from dsa_exec.runtime.attend import attend, slots_of
from dsa_exec.runtime.query_rows import query_rows


@pytest.mark.parametrize(("budget", "parts"), [(2**20, 1), (4 * 5 * 576 * 4, 4), (1, 13)])
def test_a_gather_for_slots_is_bounded(monkeypatch, budget, parts):
    """As many rows at a time as fit, one at least, and the parts are put together as they were."""
    it = batch(FP8)
    slots = it.slots(it.positions(5))
    whole = it.attend("sparse_bf16", slots, "decode")
    monkeypatch.setattr(attend_module, "GATHERED_BYTES", budget)
    assert calls(lambda: it.attend("sparse_bf16", slots, "decode"))["kv_gather"] == parts
    check_same(it.attend("sparse_bf16", slots, "decode"), whole, tolerance=1e-6)


@pytest.mark.parametrize("mapped_bytes", [1, 200, 2**20])
def test_positions_become_slots_in_parts(monkeypatch, mapped_bytes):
    """Through the page table of the row's own request; -1, pages that are not there and what is beyond stay -1."""
    it = batch(FP8)
    monkeypatch.setattr(attend_module, "MAPPED_BYTES", mapped_bytes)
    positions = torch.full((sum(NEW), 4), -1, dtype=torch.int32, device=DEVICE)
    positions[0] = ints(0, 64, 129, 191)
    positions[5] = ints(0, 63, 64, -1)
    positions[12] = ints(63, 64, 300, 2**30)
    slots = slots_of(positions, it.rows, it.cache)
    assert slots.dtype == torch.int32
    assert slots[0].tolist() == [320, 0, 193, 255]
    assert slots[5].tolist() == [64, 127, -1, -1]
    assert slots[12].tolist() == [191, 384, -1, -1]
    assert (slots[[1, 2, 3, 4, 6, 7, 8, 9, 10, 11]] == -1).all()


@pytest.mark.parametrize("way", ["dense", "sparse_bf16", "fp8_kv"])
def test_rows_that_attend_to_nothing(way):
    """Zeros and -inf, whatever the cache holds where -1 would lie."""
    it = batch(FP8)
    it.cache.data[[0, -1]] = POISON
    rows = dataclasses.replace(it.rows, starts=it.rows.starts * 0, ends=it.rows.ends * 0)
    nothing = torch.full((sum(NEW), 3), -1, dtype=torch.int32, device=DEVICE)
    selected = None if way == "dense" else nothing
    out, lse = attend(path(way), it.q, it.cache, selected, rows, sm_scale=SCALE)
    assert not out.any()
    assert lse.isneginf().all()
    if way != "dense":
        out, lse = attend(path(way, FP8, "decode"), it.q, it.cache, nothing, sm_scale=SCALE)
        assert not out.any()
        assert lse.isneginf().all()


@pytest.mark.parametrize("way", ["sparse_bf16", "fp8_kv"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_a_selection_of_no_column(way, phase):
    """k of 0 is a selection of nothing."""
    it = batch(FP8)
    out, lse = it.attend(way, torch.zeros(sum(NEW), 0, dtype=torch.int32, device=DEVICE), phase)
    assert not out.any()
    assert lse.isneginf().all()


@pytest.mark.parametrize("way", ["dense", "sparse_bf16", "fp8_kv"])
def test_no_row(way):
    """An empty batch gives empty results in every phase."""
    cache = batch(FP8).cache
    none = ints().reshape(0, 3)
    rows = query_rows(ints().reshape(0, 2), ints(), ints(), rows=0, total_tokens=0)
    q = normal(0, 0, HEADS, 576)
    selected = None if way == "dense" else none
    out, lse = attend(path(way), q, cache, selected, rows, sm_scale=SCALE)
    assert (out.shape, lse.shape) == ((0, HEADS, 512), (0, HEADS))
    if way != "dense":
        out, lse = attend(path(way, FP8, "target_verify"), q, cache, none, sm_scale=SCALE)
        assert (out.shape, lse.shape) == ((0, HEADS, 512), (0, HEADS))


def test_t32_a_path_for_another_cache_is_refused():
    """T32: what was decided for one format never runs over another, whichever way it is."""
    fp8, model = batch(FP8), batch(MODEL)
    for it, other in ((fp8, MODEL), (model, FP8)):
        for phase, rows in (("prefill", it.rows), ("decode", None)):
            with pytest.raises(LayoutError, match=f"format is {it.cache.layout.format}; wanted {other.format}, for"):
                attend(path("sparse_bf16", other, phase), it.q, it.cache, it.positions(3), rows, sm_scale=SCALE)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("selected is None; wanted what index_select gave", {"selected": None}),
        ("selected is given; wanted .*None on a path that selects nothing", {"path": path("dense")}),
        ("selected is int64", {"selected": torch.zeros(13, 3, dtype=torch.int64, device=DEVICE)}),
        (r"selected has shape \[12, 3\]", {"selected": torch.zeros(12, 3, dtype=torch.int32, device=DEVICE)}),
        ("rows is None in prefill; wanted QueryRows in a prefill", {"rows": None}),
        ("rows is given in decode; wanted .*None in other phases", {"path": path("fp8_kv", FP8, "decode")}),
        ("path is str; wanted AttentionPath", {"path": "dense"}),
        ("cache is Tensor; wanted MlaCache", {"cache": torch.zeros(1)}),
        ("q has shape", {"q": torch.zeros(13, 3, 512, device=DEVICE)}),
    ],
)
def test_what_a_path_does_not_take_is_an_error(words, change):
    """A selection where none belongs, or none where one does; rows likewise."""
    it = batch(FP8)
    given = {"path": path("fp8_kv"), "q": it.q, "cache": it.cache, "selected": it.positions(3), "rows": it.rows}
    with pytest.raises(ArgumentError, match=f"^attend: {words}"):
        attend(**{**given, **change}, sm_scale=SCALE)


def test_t33_batches_in_turns_keep_their_own_way():
    """T33: two batches whose layers alternate, one dense and one not, and a decode between: each as if alone."""
    first, second = batch(FP8), batch(FP8)
    at, slots = second.positions(3), second.slots(second.positions(3))
    alone = [first.attend("dense", None), second.attend("fp8_kv", at), second.attend("sparse_bf16", slots, "decode")]
    for _layer in range(2):
        in_turns = [
            first.attend("dense", None),
            second.attend("fp8_kv", at),
            second.attend("sparse_bf16", slots, "decode"),
        ]
        for got, wanted in zip(in_turns, alone, strict=True):
            check_same(got, wanted, tolerance=0)


@pytest.mark.parametrize(
    ("way", "phase"),
    [("dense", "prefill"), *((way, it) for way in ("sparse_bf16", "fp8_kv") for it in ("prefill", "decode"))],
)
def test_nothing_waits(monkeypatch, way, phase):
    """Beside the checks, which are done on the CPU alone, no value is asked of the device; nor for the rows."""
    it = batch(FP8)
    selected = None if way == "dense" else it.positions(3)
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)
    monkeypatch.setattr(Arguments, "total", lambda _self, _lens, _name, given, **__: given)
    with Watch() as watch:
        it.attend(way, selected, phase)
        query_rows(it.rows.page_table, ints(*NEW), ints(*LENS), rows=sum(NEW), total_tokens=sum(LENS))
    waits = {"aten.nonzero", "aten.item", "aten._local_scalar_dense", "aten.is_nonzero", "aten.masked_select"}
    assert waits.isdisjoint(watch.calls)


def test_in_a_compiled_graph():
    """Every way is traced whole, ops as nodes, and gives what it gives outside."""
    it = batch(FP8)
    at = it.positions(3)
    for way, selected in (("dense", None), ("sparse_bf16", at), ("fp8_kv", at)):
        torch._dynamo.reset()
        compiled = torch.compile(it.attend, fullgraph=True, backend="aot_eager")
        check_same(compiled(way, selected), it.attend(way, selected))
        if selected is not None:
            check_same(compiled(way, it.slots(at), "decode"), it.attend(way, it.slots(at), "decode"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("way", ["sparse_bf16", "fp8_kv"])
def test_decode_is_captured_and_replayed(way):
    """A captured decode follows slots that change, whichever way it goes over the FP8 cache."""
    it = batch(FP8)
    it = dataclasses.replace(it, q=it.q.bfloat16())
    slots = it.slots(it.positions(20))
    other = slots.roll(1, 0).contiguous()
    it.attend(way, slots, "decode")  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = it.attend(way, slots, "decode")
    for values in (other, slots.clone()):
        wanted = it.attend(way, values, "decode")
        slots.copy_(values)
        graph.replay()
        check_same(got, wanted, tolerance=0)
