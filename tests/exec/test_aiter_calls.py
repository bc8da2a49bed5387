"""What aiter is given, and who else reads pages that were made for it."""

from __future__ import annotations

import dataclasses
import inspect
import types

import pytest
import torch
from aiter_samples import CPU, OPS, PRESHUFFLED, by_aiter, cache_of, call, ints
from fakes.aiter import Build, machine, rocm
from live_tensors import Watch

import dsa_exec
from dsa_config import settings
from dsa_exec import IndexKCache, SlotMap, record_calls
from dsa_exec.core.hardware import assumed, capabilities
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.vendors import Library
from dsa_exec.layouts.index_k import IndexKLayout


@pytest.fixture(autouse=True)
def _on():
    with settings.override(use_aiter=True):
        yield


def test_t23_exactly_the_slots_that_are_given_are_written():
    """T23: the ancestor wrote a whole batch's slots, whatever part of it was given."""
    hw, library = machine()
    cache = cache_of()
    before = cache.data.clone()
    all_slots = ints(70, 3, 140, 200, dtype=torch.int64)
    part = all_slots[1:3]
    by_aiter("index_store", hw, cache=cache, slots=part)
    (given,) = library.named("store")
    assert given["slot_mapping"].tolist() == part.tolist()
    layout = cache.layout
    changed = (cache.data != before).flatten().nonzero()[:, 0].tolist()
    own = {layout.key_byte(slot, channel) for slot in (3, 140) for channel in range(128)}
    own |= {layout.scale_byte(slot) + byte for slot in (3, 140) for byte in range(4)}
    assert changed
    assert set(changed) <= own


def test_t23_slots_that_are_none_are_not_written():
    """T23: -1, and unchecked what the cache does not have, reach aiter as -1; int32 slots as int64."""
    hw, library = machine()
    by_aiter("index_store", hw, keys=torch.randn(3, 128), slots=ints(-1, 5, 255))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsa_exec.core.checks.Arguments.values", lambda *_, **__: None)
        by_aiter("index_store", hw, slots=ints(256, 2**31 - 1))
    first, second = library.named("store")
    assert (first["slot_mapping"].tolist(), first["slot_mapping"].dtype) == ([-1, 5, 255], torch.int64)
    assert second["slot_mapping"].tolist() == [-1, -1]


@pytest.mark.parametrize("backend", ["torch", "triton", "aiter"])
@pytest.mark.parametrize("lens", [(200,), (70, 128, 1)])
def test_t25_every_gather_reads_preshuffled_pages(backend, lens):
    """T25: the ancestor's gather of a single request took tiles for rows. One request or several, any backend."""
    if backend == "triton":
        pytest.importorskip("triton")
    plain, table = cache_of(IndexKLayout(), pages=6), ints(*range(12)).view(3, 4)[: len(lens)] % 6
    tiles = IndexKCache(torch.zeros_like(plain.data), PRESHUFFLED)
    for slot in range(plain.slots):
        for channel in range(128):
            byte = plain.data.view(-1)[plain.layout.key_byte(slot, channel)]
            tiles.data.view(-1)[PRESHUFFLED.key_byte(slot, channel)] = byte
    tiles.data[:, 64 * 128 :] = plain.data[:, 64 * 128 :]
    wanted = dsa_exec.index_gather(plain, table, ints(*lens), sum(lens))
    # The portable kernel runs here under the interpreter, on the CPU as it is.
    hw = capabilities(CPU) if backend == "triton" else machine()[0]
    with assumed(hw), settings.override(index_gather_backend=backend):
        keys, scales = dsa_exec.index_gather(tiles, table, ints(*lens), sum(lens))
    assert torch.equal(keys.view(torch.uint8), wanted[0].view(torch.uint8))
    assert torch.equal(scales, wanted[1])


def test_a_request_far_longer_than_its_table_reads_no_foreign_memory():
    """aiter goes on behind the row of the table; what it finds there are pages, and what it gathers is zeroed."""
    hw, library = machine()
    keys, scales = by_aiter("index_gather", hw, page_table=ints(3).view(1, 1), seq_lens=ints(500), total_tokens=500)
    wanted = call("index_gather", page_table=ints(3).view(1, 1), seq_lens=ints(500), total_tokens=500)
    assert torch.equal(keys.view(torch.uint8), wanted[0].view(torch.uint8))
    assert torch.equal(scales, wanted[1])
    assert not scales[64:].any()
    assert library.named("gather")[0]["block_table"].tolist() == [[3], [0]]


def test_rows_of_a_request_become_requests():
    """Rows of any lengths: each with its own length and its request's pages, seen in the decision."""
    hw, library = machine()
    q = torch.randn(2, 3, 12, 128).to(E4M3)
    lens = ints(7, 0, 64, 3, 70, 1).view(2, 3)
    changes = {"q": q, "head_weights": torch.randn(6, 12), "context_lens": lens, "max_context_len": 80}
    with record_calls() as trace:
        by_aiter("paged_mqa_logits", hw, page_table=ints(2, 0, 1, 3).view(2, 2), **changes)
    (given,) = library.named("paged")
    assert given["q"].shape == (6, 1, 32, 128)
    assert given["context_lens"].tolist() == lens.flatten().tolist()
    assert given["kv_indices"].tolist() == [[2, 0]] * 3 + [[1, 3]] * 3
    ((decision, _),) = trace.decisions.values()
    assert decision.why.endswith("; 3 rows a request as requests of their own; 12 heads padded to 32")


@pytest.mark.parametrize("op", ["mqa_logits", "paged_mqa_logits"])
def test_gfx942_is_given_halves_as_fnuz(op):
    """Its matrix units read e4m3fnuz: the same bytes are half the numbers, weights make up for it, -0 is 0."""
    hw, library = machine("gfx942")
    layout = dataclasses.replace(PRESHUFFLED, unsigned_zero=True)
    with record_calls() as trace:
        by_aiter(op, hw, layout)
        by_aiter(op, machine("gfx950")[0], layout)
    (given,) = library.named("mqa_logits" if op == "mqa_logits" else "paged")
    assert (given["Q"] if op == "mqa_logits" else given["q"]).dtype is torch.float8_e4m3fnuz
    generator = torch.Generator().manual_seed(4)
    torch.randn(2, 32, 128, generator=generator)
    assert torch.equal(given["weights"], torch.randn(2, 32, generator=generator) * 4)
    assert "e4m3 numbers are given as e4m3fnuz of half the value" in next(iter(trace.decisions.values()))[0].why


def test_a_cache_that_gfx942_allocates_is_scored_by_aiter_there():
    """From allocation to logits with one set of settings: preshuffled, without -0, and as the specification has it."""
    hw, library = machine("gfx942")
    keys = torch.randn(70, 128, generator=torch.Generator().manual_seed(1)) * 1e-3
    keys[:, 0] = 1.0  # so that many others round to -0
    results = {}
    for backend in ("aiter", "torch"):
        with assumed(hw), settings.override(paged_mqa_logits_backend=backend):
            cache = IndexKCache.allocate(128, device="cpu", model_dtype=torch.bfloat16)
            dsa_exec.index_store(cache, keys, torch.arange(70))
            results[backend] = call(
                "paged_mqa_logits",
                cache=cache,
                page_table=ints(0, 1, 1, 0).view(2, 2),
                context_lens=ints(70, 6)[:, None],
                max_context_len=70,
            )
    assert cache.layout == IndexKLayout(order="preshuffled", unsigned_zero=True)
    assert len(library.named("paged")) == 1
    torch.testing.assert_close(results["aiter"], results["torch"])
    assert not results["aiter"].isnan().any()


@pytest.mark.parametrize("from_row", [True, False])
def test_topk_finds_out_how_picks_are_numbered(from_row):
    """A row that nobody asked for goes along; NaN, zeros of both signs, and windows come out as the op says."""
    hw, library = machine(build=Build(from_row=from_row))
    logits = torch.tensor([[0.0, -0.0, 5.0, torch.nan, 0.0, 7.0, 1.0]] * 3)
    starts, lengths = ints(1, 4, 6), ints(5, 9, 0)
    got = by_aiter("topk", hw, logits=logits, lengths=lengths, row_starts=starts, k=3)
    assert got.tolist() == [[0, 1, 4], [0, 1, 2], [-1, -1, -1]]
    (given,) = library.named("topk")
    assert given["numRows"] == 4
    assert given["stable"] is True
    slot_map = SlotMap(ints(9, 1, 1, 9).view(2, 2), 4, ints(0, 1, 0), slot_count=36)
    got = by_aiter("topk", hw, logits=logits, lengths=lengths, row_starts=starts, k=3, slot_map=slot_map)
    assert got.tolist() == [[-1, -1, 4], [4, 5, 6], [-1, -1, -1]]


@pytest.mark.parametrize(
    ("op", "changes"),
    [
        ("index_store", {"keys": torch.zeros(0, 128), "slots": ints()}),
        ("index_gather", {"page_table": ints().view(0, 1), "seq_lens": ints()}),
        ("index_gather", {"page_table": ints().view(2, 0), "seq_lens": ints(2, 3)}),
        ("index_gather", {"seq_lens": ints(0, 0)}),
        (
            "mqa_logits",
            {"q": torch.zeros(0, 32, 128).to(E4M3), "head_weights": torch.zeros(0, 32)}
            | {"starts": ints(), "ends": ints()},
        ),
        (
            "mqa_logits",
            {"keys": torch.zeros(0, 128).to(E4M3), "scales": torch.zeros(0)}
            | {"starts": ints(0, 0), "ends": ints(0, 0)},
        ),
        ("paged_mqa_logits", {"max_context_len": 0, "context_lens": ints(0, 0).view(2, 1)}),
        ("paged_mqa_logits", {"page_table": ints().view(2, 0), "context_lens": ints(0, 0).view(2, 1)}),
        ("topk", {"logits": torch.zeros(0, 9), "lengths": ints()}),
        ("topk", {"logits": torch.zeros(2, 0), "lengths": ints(0, 0)}),
    ],
)
def test_nothing_to_do_is_not_launched(op, changes):
    """A launch of no block is an error there; here an empty or filled result comes back without a call."""
    hw, library = machine()
    result = by_aiter(op, hw, **changes)
    assert library.calls == []
    if op == "paged_mqa_logits":
        assert bool((result == -torch.inf).all())
    if op == "index_gather":
        assert not result[0].view(torch.uint8).any()


@pytest.mark.parametrize("op", OPS)
def test_nothing_waits_for_the_device(op):
    """No number is read from a tensor on the way, so that a call can be captured in a graph."""
    module = types.ModuleType("aiter")
    nothing = lambda *args, **kwargs: torch.zeros(2, 9)  # noqa: E731 - no library, only what is around it
    _, library = machine()
    real = library.module()
    for name in ("indexer_k_quant_and_cache", "cp_gather_indexer_k_quant_cache", "top_k_per_row_prefill"):
        setattr(module, name, _like(getattr(real, name), nothing))
    module.ops = real.ops
    folder = module.ops.triton.attention
    for home, name in (
        (folder.fp8_mqa_logits, "fp8_mqa_logits"),
        (folder.pa_mqa_logits, "deepgemm_fp8_paged_mqa_logits"),
    ):
        setattr(home, name, _like(getattr(home, name), nothing))
    hw = rocm("gfx950", "3.6.0", Library("aiter", "amd-aiter", "0.1.20", 1, module))
    more = {"total_tokens": 8} if op == "index_gather" else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dsa_exec.core.checks.Arguments.values", lambda *_, **__: None)
        patch.setattr("dsa_exec.core.checks.Arguments.total", lambda _self, _lens, _name, given, **__: given)
        patch.setattr("dsa_exec.ops.paged_mqa_logits.kernels.settle.settle", lambda call, logits, out: logits)
        by_aiter(op, hw, **more)  # imports, and decides
        with Watch() as watch:
            by_aiter(op, hw, **more)
    assert {"aten.nonzero", "aten.item", "aten._local_scalar_dense", "aten.is_nonzero"}.isdisjoint(watch.calls)


def _like(function, body):
    """A function with another's parameters."""

    def like(*args, **kwargs):
        return body(*args, **kwargs)

    like.__signature__ = inspect.signature(function)
    return like
