"""A model whose index keys lie in pages as on ROCm: of one token under a table of their own, or preshuffled."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from fakes.aiter import machine
from tiny_models import CONFIGS, build, prompt

from dsa_config import settings
from dsa_exec.core.hardware import assumed
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached
from dsa_exec.integrations.transformers.pool_of_requests import index_page_table
from dsa_exec.layouts.views import finer_page_table

QUANTISED = {"index_k_format": "fp8", "kv_format": "model"}


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    return build(request.param)


def logits(model, hw, **values) -> tuple[torch.Tensor, DsaCache]:
    """Of a prompt, and of two more tokens one by one, on some hardware."""
    tokens = torch.tensor([prompt(0, 71), prompt(1, 71)])
    with torch.no_grad(), assumed(hw), settings.override(**{**QUANTISED, **values}), attached(model):
        cache = DsaCache.for_model(model, max_tokens=100, batch_size=2)
        parts = [tokens[:, :69], tokens[:, 69:70], tokens[:, 70:]]
        return torch.cat([model(part, past_key_values=cache).logits for part in parts], 1), cache


def test_pages_of_one_token_live_beside_pages_of_64(model):
    """Without aiter index keys are in pages of 1: the MLA caches' table is not theirs, the slots are."""
    hw, _ = machine()
    got, cache = logits(model, hw)
    wanted, plain = logits(model, dataclasses.replace(hw, is_hip=False, arch="sm90"))
    assert cache.layers[0].index_k.layout.page_tokens == 1
    assert cache.layers[0].mla.layout.page_tokens == 64
    assert cache.page_table.tolist() == plain.page_table.tolist() == [[0, 1], [2, 3]]
    assert cache.index_page_table.tolist() == [list(range(128)), list(range(128, 256))]
    assert plain.index_page_table is plain.page_table
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_preshuffled_pages_are_scored_by_aiter(model):
    """With aiter they are of 64 and in tiles; prefill and decode are scored and picked by it, to the same end."""
    hw, library = machine("gfx942")
    got, cache = logits(model, hw, use_aiter=True)
    wanted, _ = logits(model, dataclasses.replace(hw, is_hip=False, arch="sm90"))
    assert cache.layers[0].index_k.layout.order == "preshuffled"
    assert cache.index_page_table is cache.page_table
    assert {"mqa_logits", "paged", "topk"} <= {it.name for it in library.calls}
    torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)


def test_pages_that_cannot_live_together_are_refused(model):
    """Layers whose index keys lie in pages of several sizes, or of one that does not divide the others'."""
    with settings.override(**QUANTISED):
        first = DsaCache.for_model(model, max_tokens=64).layers
    with assumed(machine()[0]), settings.override(**QUANTISED):
        second = DsaCache.for_model(model, max_tokens=64).layers
    table = torch.zeros(1, 1, dtype=torch.int32)
    with pytest.raises(NotSupported, match="have pages of 1, 64 tokens: one size for all layers is supported"):
        index_page_table([first[0], second[0]], table)
    first[0].index_k = dataclasses.replace(
        second[0].index_k,
        data=torch.zeros(1, 48 * 132, dtype=torch.uint8),
        layout=dataclasses.replace(second[0].index_k.layout, page_tokens=48),
    )
    with pytest.raises(NotSupported, match="have pages of 48 tokens"):
        index_page_table(first[:1], table)


def test_a_finer_table_has_the_same_slots():
    """No page stays none, and what an int32 cannot number becomes none."""
    table = torch.tensor([[2, -1], [2**31 - 1, 0]], dtype=torch.int32)
    assert finer_page_table(table, 2).tolist() == [[4, 5, -1, -1], [-1, -1, 0, 1]]
    assert finer_page_table(table[:, :0], 64).shape == (2, 0)
