"""Where bytes are: addresses, sizes and views."""

from __future__ import annotations

import pytest
import torch

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


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: IndexKLayout(page_tokens=0), "page size is 0; wanted at least 1"),
        (lambda: IndexKLayout(head_dim=64), "head_dim is 64; wanted 128 channels.*index_k_format=model"),
        (lambda: IndexKLayout(page_tokens=24, order="preshuffled"), "page size is 24; wanted a multiple of 16"),
        (lambda: IndexKLayout("model", hadamard=True), "format is model; wanted fp8"),
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
    table = torch.tensor([[5, 2], [2**25, 0]], dtype=torch.int32)
    slots = SlotMap(table, 64, torch.tensor([0, 1])).slots(torch.tensor([[0, 64, 127, 128, -1], [3, 70, -5, 999, 63]]))
    assert slots.dtype == torch.int64
    big = 2**25 * 64
    assert slots.tolist() == [[320, 128, 191, -1, -1], [big + 3, 6, -1, -1, big + 63]]
    assert request_slots(table, torch.tensor([2, 65]), 64, 67).tolist() == [320, 321, *range(big, big + 64), 0]
    empty = SlotMap(table[:, :0], 64, torch.tensor([0, 1])).slots(torch.tensor([[0], [1]]))
    assert empty.tolist() == [[-1], [-1]]
