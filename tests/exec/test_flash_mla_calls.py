"""What flash_mla is given: the order of the arguments, their dtypes, shapes and strides."""

from __future__ import annotations

import pytest
import torch
from fakes.flash_mla import FakeFlashMla

from dsa_config import settings
from dsa_exec import MlaCache, sparse_mla_decode, sparse_mla_prefill
from dsa_exec.core.hardware import assumed
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops.sparse_mla_decode import on_flash_mla as decode_file
from dsa_exec.ops.sparse_mla_decode.schedules import forget_schedules
from dsa_exec.ops.sparse_mla_prefill import on_flash_mla as prefill_file

NAMED = {"sparse_mla_prefill_backend": "flash_mla", "sparse_mla_decode_backend": "flash_mla"}
SCALE = 576**-0.5


@pytest.fixture(autouse=True)
def _named():
    forget_schedules()
    with settings.override(**NAMED):
        yield
    forget_schedules()


def bf16(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).bfloat16()


def picked(rows: int, k: int, count: int) -> torch.Tensor:
    return (torch.arange(rows * k) % count).int().view(rows, k)


def cache_of(slots: int = 128, page_tokens: int = 64) -> MlaCache:
    return MlaCache(torch.zeros(slots, 656, dtype=torch.uint8), MlaLayout(page_tokens=page_tokens))


def one_call(fake: FakeFlashMla) -> dict:
    (call,) = fake.calls
    return call


@pytest.mark.parametrize("build", ["sgl", "upstream"])
def test_prefill_passes_what_the_signature_says(build):
    """q as it is, kv and indices with one key head, -1 to a whole tile of indices, and natural logarithms asked for."""
    fake = FakeFlashMla(build=build)
    q, kv, sink = bf16(3, 64, 576), bf16(90, 576), torch.zeros(64)
    with assumed(fake.capabilities()):
        sparse_mla_prefill(q, kv, picked(3, 130, 90), sm_scale=SCALE, attn_sink=sink)
    call = one_call(fake)
    assert call["q"] is q
    assert (call["kv"].shape, call["kv"].data_ptr()) == ((90, 1, 576), kv.data_ptr())
    assert call["indices"].shape == (3, 1, 256)
    assert torch.equal(call["indices"][:, 0, :130], picked(3, 130, 90))
    assert (call["indices"][:, 0, 130:] == -1).all()
    assert (call["sm_scale"], call["d_v"], call["topk_length"]) == (SCALE, 512, None)
    assert call["attn_sink"].data_ptr() == sink.data_ptr()
    assert call["attn_sink"].shape == (64,)
    assert call.get("use_legacy") is (True if build == "sgl" else None)
    assert call.get("return_log2_lse") is None


@pytest.mark.parametrize("build", ["sgl", "upstream"])
@pytest.mark.parametrize("page_tokens", [1, 64, 128])
def test_decode_passes_what_the_signature_says(build, page_tokens):
    """One query a request, the cache in pages of 64 of e4m3 whatever its own are, no lengths, an unfilled schedule."""
    fake = FakeFlashMla(build=build)
    q, cache = bf16(3, 128, 576), cache_of(page_tokens=page_tokens)
    with assumed(fake.capabilities()):
        sparse_mla_decode(q, cache, picked(3, 40, 128), sm_scale=SCALE)
    call = one_call(fake)
    assert (call["q"].shape, call["q"].data_ptr()) == ((3, 1, 128, 576), q.data_ptr())
    assert (call["k_cache"].shape, call["k_cache"].dtype) == ((2, 64, 1, 656), torch.float8_e4m3fn)
    assert call["k_cache"].data_ptr() == cache.data.data_ptr()
    assert call["indices"].shape == (3, 1, 128)
    assert torch.equal(call["indices"][:, 0, :40], picked(3, 40, 128))
    assert (call["indices"][:, 0, 40:] == -1).all()
    assert (call["block_table"], call["cache_seqlens"], call["num_splits"]) == (None, None, None)
    assert (call["head_dim_v"], call["softmax_scale"], call["causal"], call["is_fp8_kvcache"]) == (
        512,
        SCALE,
        False,
        True,
    )
    assert call["tile_scheduler_metadata"] is fake.schedules[0]
    assert call["attn_sink"] is call["topk_length"] is call["extra_k_cache"] is None


@pytest.mark.parametrize("sink", [-torch.inf, 0.5])
def test_a_sink_is_padded_with_the_heads(sink):
    """The library wants as many as there are heads; those of padded heads are sliced away with them."""
    fake = FakeFlashMla()
    with assumed(fake.capabilities()):
        given = torch.full((24,), sink)
        sparse_mla_prefill(bf16(2, 24, 576), bf16(9, 576), picked(2, 4, 9), sm_scale=SCALE, attn_sink=given)
        sparse_mla_decode(bf16(2, 24, 576), cache_of(), picked(2, 4, 128), sm_scale=SCALE, attn_sink=given)
    for call in fake.calls:
        assert call["attn_sink"].tolist() == [sink] * 24 + [0.0] * 40


def test_on_sm100_prefill_is_given_128_heads():
    """Not every build has a kernel for 64 there; decode has."""
    fake = FakeFlashMla("sm100")
    with assumed(fake.capabilities()):
        sparse_mla_prefill(bf16(2, 16, 576), bf16(9, 576), picked(2, 4, 9), sm_scale=SCALE)
        sparse_mla_decode(bf16(2, 16, 576), cache_of(), picked(2, 4, 128), sm_scale=SCALE)
    assert [call["q"].shape[-2] for call in fake.calls] == [128, 64]


def test_rows_apart_are_copied_and_rows_of_kv_are_not():
    """q in a wider tensor is copied to be contiguous; wider rows of kv are read where they are."""
    fake = FakeFlashMla()
    q, kv = bf16(3, 64, 592)[..., :576], bf16(90, 592)[:, :576]
    with assumed(fake.capabilities()):
        sparse_mla_prefill(q, kv, picked(3, 130, 90)[:, 2:], sm_scale=SCALE)
    call = one_call(fake)
    assert call["q"].is_contiguous()
    assert torch.equal(call["q"], q)
    assert (call["kv"].data_ptr(), call["kv"].stride(0)) == (kv.data_ptr(), 592)
    assert torch.equal(call["indices"][:, 0], picked(3, 130, 90)[:, 2:])


@pytest.mark.parametrize("heads", [16, 64])
def test_many_rows_are_decoded_some_at_a_time(monkeypatch, heads):
    """Its partial sums take 2 KiB a head and row: rows are cut, and the parts put together."""
    monkeypatch.setattr(decode_file, "ROW_HEADS", 64 * 2)
    fake = FakeFlashMla()
    cache = cache_of()
    cache.data.copy_(torch.randint(0, 96, cache.data.shape, dtype=torch.uint8))
    q, slots = bf16(5, heads, 576), picked(5, 40, 128)
    slots[3] = -1
    with assumed(fake.capabilities()):
        out, lse = sparse_mla_decode(q, cache, slots, sm_scale=SCALE)
        alone = [sparse_mla_decode(q[row, None], cache, slots[row, None], sm_scale=SCALE) for row in range(5)]
    assert [call["q"].shape[0] for call in fake.calls] == [2, 2, 1] + [1] * 5
    assert torch.equal(out, torch.cat([it[0] for it in alone]))
    assert torch.equal(lse, torch.cat([it[1] for it in alone]))
    assert not out[3].any()
    assert lse[3].isneginf().all()


def test_rows_of_prefill_are_cut_only_to_bound_the_padding(monkeypatch):
    """Padded queries take up to 18 times what they are; without padding there is nothing to bound."""
    monkeypatch.setattr(prefill_file, "PADDED_ROWS", 64 * 2)
    fake = FakeFlashMla()
    with assumed(fake.capabilities()):
        for heads in (16, 64):
            sparse_mla_prefill(bf16(5, heads, 576), bf16(9, 576), picked(5, 4, 9), sm_scale=SCALE)
    assert [call["q"].shape[0] for call in fake.calls] == [2, 2, 1, 5]


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize(("k", "count"), [(0, 9), (4, 0)])
def test_what_selects_nothing_makes_no_call(rows, k, count):
    """No row, no index or nothing to select from: zeros and -inf, which the library would refuse to make."""
    fake = FakeFlashMla()
    q = bf16(rows, 24, 576)
    with assumed(fake.capabilities()):
        out, lse = sparse_mla_prefill(q, bf16(count, 576), torch.zeros(rows, k, dtype=torch.int32), sm_scale=SCALE)
        if count:
            there, _ = sparse_mla_decode(q, cache_of(), torch.zeros(rows, k, dtype=torch.int32), sm_scale=SCALE)
            assert there.shape == (rows, 24, 512)
    assert fake.calls == []
    assert (out.shape, out.dtype, lse.shape, lse.dtype) == ((rows, 24, 512), torch.bfloat16, (rows, 24), torch.float32)
    assert not out.any()
    assert lse.isneginf().all()
