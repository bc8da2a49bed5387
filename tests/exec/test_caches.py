"""Caches: format decided once, at allocation, by the settings of that moment."""

from __future__ import annotations

import pytest
import torch

import dsa_exec
from dsa_config import settings
from dsa_exec import IndexKCache, MlaCache
from dsa_exec.core.errors import LayoutError
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
        lambda: IndexKCache.allocate(64, device="cpu", model_dtype=torch.float32, head_dim=64),
        lambda: MlaCache.allocate(64, device="cpu", model_dtype=torch.float32, latent_dim=96),
    ],
)
def test_a_tensor_that_does_not_fit_its_layout_is_refused(make):
    """T24: what is not contiguous would be copied, and the write lost; the rest would be misread."""
    with pytest.raises(LayoutError, match="cache: .* is .*; wanted "):
        make()
