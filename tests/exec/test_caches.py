"""Caches: format decided once, at allocation, by the settings of that moment."""

from __future__ import annotations

import pytest
import torch

import dsa_exec
from dsa_config import settings
from dsa_exec import IndexKCache, MlaCache
from dsa_exec.core.errors import LayoutError, RangeError
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout


def allocate(slots: int = 100, **geometry) -> tuple[IndexKCache, MlaCache]:
    where = {"device": "cpu", "model_dtype": torch.bfloat16}
    return IndexKCache.allocate(slots, **where), MlaCache.allocate(slots, **where, **geometry)


def test_allocation_follows_the_formats_of_the_moment():
    """fp8 by default; the model's dtype under index_k_format and kv_format; whole pages, zeroed."""
    index_k, mla = allocate()
    assert (index_k.data.shape, index_k.data.dtype, index_k.slots) == ((2, 8448), torch.uint8, 128)
    assert (mla.data.shape, mla.data.dtype, mla.slots) == ((128, 656), torch.uint8, 128)
    with settings.override(index_k_format="model", kv_format="model"):
        index_k, mla = allocate(latent_dim=32, rope_dim=16)
    assert (index_k.data.shape, index_k.data.dtype, index_k.slots) == ((2, 64, 128), torch.bfloat16, 128)
    assert (mla.data.shape, mla.data.dtype, mla.layout.token_bytes) == ((128, 48), torch.bfloat16, 96)
    assert not index_k.data.any()


def test_a_later_change_of_the_setting_does_not_touch_the_cache():
    """T4: the layout travels with the tensor; nobody asks the setting again."""
    index_k, mla = allocate()
    key, latent, rope, slot = torch.ones(1, 128), torch.ones(1, 512), torch.ones(1, 64), torch.tensor([70])
    with settings.override(index_k_format="model", kv_format="model"):
        dsa_exec.index_store(index_k, key, slot)
        dsa_exec.kv_store(mla, latent, rope, slot)
        table, lens = torch.tensor([[0, 1]], dtype=torch.int32), torch.tensor([71])
        keys, scales = dsa_exec.index_gather(index_k, table, lens)
        tokens = dsa_exec.kv_gather(mla, table, lens, dtype=torch.float32)
    torch.testing.assert_close(keys[70].float() * scales[70], key[0])
    torch.testing.assert_close(tokens[70], torch.ones(576))


@pytest.mark.parametrize(
    "make",
    [
        lambda: IndexKCache(torch.zeros(2, 8447, dtype=torch.uint8), IndexKLayout()),
        lambda: IndexKCache(torch.zeros(2, 8448, dtype=torch.int8), IndexKLayout()),
        lambda: IndexKCache(torch.zeros(2, 2 * 8448, dtype=torch.uint8)[:, :8448], IndexKLayout()),
        lambda: IndexKCache(torch.zeros(0, 8448, dtype=torch.uint8), IndexKLayout()),
        lambda: IndexKCache(torch.zeros(2, 8448, dtype=torch.uint8), IndexKLayout("model")),
        lambda: MlaCache(torch.zeros(64, 655, dtype=torch.uint8), MlaLayout()),
        lambda: MlaCache(torch.zeros(63, 656, dtype=torch.uint8), MlaLayout()),
        lambda: MlaCache(torch.zeros(64, 656, dtype=torch.uint8).T.contiguous().T, MlaLayout()),
        lambda: MlaCache(torch.zeros(0, 656, dtype=torch.uint8), MlaLayout()),
        lambda: IndexKCache(torch.zeros(2, 64, 128), IndexKLayout("model", element_bytes=2)),
        lambda: MlaCache(torch.zeros(64, 576), MlaLayout("model", element_bytes=2)),
        lambda: IndexKCache.allocate(64, device="cpu", model_dtype=torch.float32, head_dim=64),
        lambda: MlaCache.allocate(64, device="cpu", model_dtype=torch.float32, latent_dim=96),
    ],
)
def test_a_tensor_that_does_not_fit_its_layout_is_refused(make):
    """T24: what is not contiguous would be copied, and the write lost; the rest would be misread."""
    with pytest.raises(LayoutError, match="cache: .* is .*; wanted "):
        make()


def test_each_option_of_the_layout_is_its_own():
    """Rounded scales, rotated keys and the order of tiles are kept apart."""
    where = {"device": "cpu", "model_dtype": torch.bfloat16}
    assert IndexKCache.allocate(64, **where).layout == IndexKLayout()
    assert IndexKCache.allocate(64, pow2_scale=True, **where).layout == IndexKLayout(pow2_scale=True)
    assert IndexKCache.allocate(64, hadamard=True, **where).layout == IndexKLayout(hadamard=True)
    preshuffled = IndexKCache.allocate(64, page_tokens=32, order="preshuffled", **where)
    assert preshuffled.layout == IndexKLayout(page_tokens=32, order="preshuffled")
    dsa_exec.index_store(preshuffled, torch.ones(1, 128), torch.tensor([40]))
    assert int(preshuffled.data.flatten()[preshuffled.layout.key_byte(40, 17)]) == 0x7E


@pytest.mark.parametrize("cache", [IndexKCache, MlaCache])
@pytest.mark.parametrize(
    ("slots", "page_tokens", "words"),
    [(0, 64, "slots is 0"), (-100, 64, "slots is -100"), (2.5, 64, "slots is 2.5"), (10, 0, "page_tokens is 0")],
)
def test_room_is_asked_for_in_whole_numbers(cache, slots, page_tokens, words):
    """No slot, part of one, or no token a page: the error names the argument."""
    with pytest.raises(RangeError, match=f"^{cache.__name__}.allocate: {words}; wanted an integer of at least 1"):
        cache.allocate(slots, page_tokens=page_tokens, device="cpu", model_dtype=torch.bfloat16)
