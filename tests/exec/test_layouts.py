"""Where bytes are: addresses, sizes and views."""

from __future__ import annotations

import pytest
import torch

from dsa_config import settings
from dsa_exec import PagedKeys, index_select, topk
from dsa_exec.caches.samples import random_index_k_cache, random_mla_cache
from dsa_exec.core.errors import LayoutError
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.paging import pages_for
from dsa_exec.layouts.views import (
    SlotMap,
    index_key_view,
    index_scale_view,
    mla_latent_view,
    mla_rope_view,
    mla_scale_view,
    request_slots,
)

PLAIN = IndexKLayout()
PRESHUFFLED = IndexKLayout(order="preshuffled")


def test_the_published_addresses():
    """Keys and scales of slot 130, plain and preshuffled, and a preshuffled key of slot 81."""
    assert PLAIN.key_byte(130, 5) == 17157
    assert PLAIN.scale_byte(130) == 25096
    assert PRESHUFFLED.scale_byte(130) == 25096
    assert PRESHUFFLED.key_byte(130, 5) == 16933
    assert PRESHUFFLED.key_byte(81, 37) == 11029


def test_the_preshuffled_order_is_a_bijection():
    """Each byte of a page's keys belongs to exactly one token and channel."""
    addresses = {PRESHUFFLED.key_byte(64 + token, channel) for token in range(64) for channel in range(128)}
    assert addresses == set(range(8448, 8448 + 8192))


def test_published_sizes():
    """A token's bytes in each format, and all layers of DeepSeek-V3.2: 48068 bytes a token."""
    assert (PLAIN.page_bytes, PLAIN.token_bytes, IndexKLayout(page_tokens=1).page_bytes) == (8448, 132, 132)
    assert (MlaLayout().token_bytes, MlaLayout("model").token_bytes) == (656, 1152)
    assert 61 * (MlaLayout().token_bytes + PLAIN.token_bytes) == 48068
    assert IndexKLayout("model", element_bytes=2).token_bytes == 256


def test_addresses_do_not_overflow():
    """T26: a 32-bit byte address ends within page 254,200; ours goes on."""
    assert 254_200 * 8448 < 2**31 < PLAIN.scale_byte(254_200 * 64 + 63)
    assert PLAIN.key_byte(254_201 * 64, 0) == 254_201 * 8448


@pytest.mark.parametrize("layout", [PLAIN, PRESHUFFLED, IndexKLayout(page_tokens=16, order="preshuffled")])
def test_views_agree_with_addresses(layout):
    """The torch views show at every token and channel the byte that the layout's equation names."""
    cache = random_index_k_cache(torch.Generator().manual_seed(1), layout, 3, torch.device("cpu"))
    raw = cache.data.flatten()
    keys, scales = index_key_view(cache.data, layout).view(torch.uint8), index_scale_view(cache.data, layout)
    for slot in (0, 5, layout.page_tokens, cache.slots - 1):
        page, token = divmod(slot, layout.page_tokens)
        key = keys[page, token] if layout.order == "plain" else keys[page, token // 16, token % 16].flatten()
        assert [int(raw[layout.key_byte(slot, channel)]) for channel in range(128)] == key.tolist()
        at = layout.scale_byte(slot)
        assert float(raw[at : at + 4].view(torch.float32)) == float(scales[page, token])


def test_views_are_views():
    """Writing through a view writes the cache, also where its rows do not lie side by side."""
    cache = random_index_k_cache(torch.Generator().manual_seed(1), PRESHUFFLED, 2, torch.device("cpu"))
    index_scale_view(cache.data, PRESHUFFLED)[1, 3] = 7.0
    at = PRESHUFFLED.scale_byte(67)
    assert float(cache.data.flatten()[at : at + 4].view(torch.float32)) == 7.0
    mla = random_mla_cache(torch.Generator().manual_seed(1), MlaLayout(), 1, torch.device("cpu"))
    for view, shape in ((mla_latent_view, 512), (mla_scale_view, 4), (mla_rope_view, 64)):
        assert view(mla.data, mla.layout).shape == (64, shape)
        assert view(mla.data, mla.layout).untyped_storage().data_ptr() == mla.data.untyped_storage().data_ptr()


@pytest.mark.parametrize("page", [-1, -(2**31), 2**25, 2**31 - 1])
def test_pages_that_cannot_be_are_none(page):
    """A negative page, and one whose slots an int32 cannot number, have no slots, in every way that slots are made."""
    table = torch.tensor([[0, page]], dtype=torch.int32)
    expected = [[62, 63, -1, -1]]
    slots = SlotMap(table, 64, torch.tensor([0])).slots(torch.tensor([[62, 63, 64, 127]]))
    assert slots.tolist() == expected
    assert request_slots(table, torch.tensor([66]), 64, 66).tolist() == [*range(64), -1, -1]
    scores = torch.zeros(1, 128)
    scores[0, [62, 63, 64, 127]] = 1.0
    assert (
        topk(scores, torch.tensor([128]).int(), 4, slot_map=SlotMap(table, 64, torch.tensor([0]))).tolist() == expected
    )


@pytest.mark.parametrize("fuse_topk", [True, False])
@pytest.mark.parametrize("page", [-1, 2, 99, 2**25, 2**31 - 1])
def test_prefill_and_decode_give_no_slot_on_pages_that_the_cache_lacks(page, fuse_topk):
    """Positions mapped by top-k for windows within rows and slots selected from the cache agree: -1."""
    cache = random_index_k_cache(torch.Generator().manual_seed(1), PLAIN, 2, torch.device("cpu"))
    table = torch.tensor([[1, page]], dtype=torch.int32)
    lens = torch.tensor([[70]], dtype=torch.int32)
    q = torch.randn(1, 1, 4, 128, generator=torch.Generator().manual_seed(1)).to(torch.float8_e4m3fn)
    with settings.override(fuse_topk=fuse_topk):
        decode = index_select(q, torch.ones(1, 4), PagedKeys(cache, table, lens), 70)
    slot_map = SlotMap(table, 64, torch.tensor([0]), cache.slots)
    prefill = topk(torch.zeros(1, 75), lens[0], 70, row_starts=torch.tensor([5]).int(), slot_map=slot_map)
    assert decode.indices.tolist() == prefill.tolist() == [[*range(64, 128), *[-1] * 6]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IndexKLayout(page_tokens=0), "page size is 0; wanted at least 1"),
        (lambda: IndexKLayout(head_dim=64), "head_dim is 64; wanted 128 channels.*index_k_format=model"),
        (lambda: IndexKLayout(page_tokens=24, order="preshuffled"), "page size is 24; wanted a multiple of 16"),
        (lambda: IndexKLayout("model", hadamard=True), "format is model; wanted fp8"),
        (lambda: IndexKLayout("fp16"), "index-K cache: format is 'fp16'; wanted 'fp8' or 'model'"),
        (lambda: IndexKLayout(order="shuffled"), "order is 'shuffled'; wanted 'plain' or 'preshuffled'"),
        (lambda: IndexKLayout(element_bytes=2), "element_bytes is 2; wanted 1 in the fp8 format"),
        (lambda: MlaLayout("bf16"), "MLA cache: format is 'bf16'; wanted 'fp8' or 'model'"),
        (lambda: MlaLayout(element_bytes=4), "element_bytes is 4; wanted 2, a bf16, in the fp8 format"),
        (lambda: MlaLayout(rope_dim=63), "qk_rope_head_dim is 63; wanted an even number.*kv_format=model"),
        (lambda: MlaLayout(page_tokens=-1), "page size is -1"),
        (lambda: MlaLayout(latent_dim=96), "kv_lora_rank is 96; wanted a multiple of 128.*kv_format=model"),
    ],
)
def test_what_cannot_be_laid_out_is_refused(make, words):
    """The error names the field, what it is, and what is wanted."""
    with pytest.raises(LayoutError, match=words):
        make()


def test_pages_and_slots():
    """Slots follow the page table; what is negative or beyond the table has none; all in int64."""
    assert [pages_for(slots, 64) for slots in (0, 1, 64, 65)] == [0, 1, 1, 2]
    table = torch.tensor([[5, 2], [2**25 - 1, 0]], dtype=torch.int32)
    slots = SlotMap(table, 64, torch.tensor([0, 1])).slots(torch.tensor([[0, 64, 127, 128, -1], [3, 70, -5, 999, 63]]))
    assert slots.dtype == torch.int64
    big = 2**31 - 64
    assert slots.tolist() == [[320, 128, 191, -1, -1], [big + 3, 6, -1, -1, big + 63]]
    assert request_slots(table, torch.tensor([2, 65]), 64, 67).tolist() == [320, 321, *range(big, big + 64), 0]
    assert SlotMap(table, 64, torch.tensor([1]), slot_count=big).slots(torch.tensor([[0, 64]])).tolist() == [[-1, 0]]
    empty = SlotMap(table[:, :0], 64, torch.tensor([0, 1])).slots(torch.tensor([[0], [1]]))
    assert empty.tolist() == [[-1], [-1]]
