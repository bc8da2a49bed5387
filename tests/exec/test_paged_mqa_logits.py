"""Scores of keys in the cache: addresses that 32 bits cannot hold, and launch parameters."""

from __future__ import annotations

import pytest
import torch
from conformance_suite import DEVICE

from dsa_config import settings
from dsa_exec import IndexKCache, paged_mqa_logits
from dsa_exec.core.errors import LaunchError, UnsupportedCall
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.registry import backends
from dsa_exec.layouts.index_k import IndexKLayout

LAYOUT = IndexKLayout()
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def page_of_keys(keys: torch.Tensor) -> torch.Tensor:
    """The bytes of a page with these keys, and scales of 1."""
    ones = torch.ones(64, device=DEVICE).view(torch.uint8)
    return torch.cat([keys.to(E4M3).view(torch.uint8).flatten(), ones])


def logits_of(backend: str, cache: IndexKCache, page: int, heads: int = 64) -> torch.Tensor:
    lens = torch.full((1, 1), 64, dtype=torch.int32, device=DEVICE)
    table = torch.full((1, 1), page, dtype=torch.int32, device=DEVICE)
    q, weights = normal(1, 1, heads, 128).to(E4M3), torch.ones(1, heads, device=DEVICE)
    try:
        with settings.override(paged_mqa_logits_backend=backend):
            return paged_mqa_logits(q, cache, weights, lens, table, 64)
    except UnsupportedCall as refusal:
        pytest.skip(str(refusal))


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", backends("paged_mqa_logits"))
def test_t26_the_last_page_of_a_cache_beyond_two_gibibytes(backend):
    """T26: page * 8448 overflows int32 from page 254,201 on; what is there is scored as on page 0 of a small cache."""
    pages = 260_000
    keys = page_of_keys(normal(64, 128))
    large = IndexKCache(torch.full((pages, LAYOUT.page_bytes), 0xFF, dtype=torch.uint8, device=DEVICE), LAYOUT)
    large.data[-1] = keys
    small = IndexKCache(keys[None].clone(), LAYOUT)
    assert torch.equal(logits_of(backend, large, pages - 1), logits_of(backend, small, 0))


@pytest.mark.parametrize("backend", backends("paged_mqa_logits"))
def test_t26_a_page_far_beyond_the_cache_is_none(backend):
    """T26: its address would overflow; nothing is read, and its keys score -inf."""
    cache = IndexKCache(page_of_keys(normal(64, 128))[None], LAYOUT)
    assert logits_of(backend, cache, 2**31 - 1).isneginf().all()
    assert logits_of(backend, cache, 0).isfinite().all()


def test_launch_parameters_are_replaced_by_name():
    """A field that the kernel does not have is an error with those that it has."""
    cache = IndexKCache(page_of_keys(normal(64, 128))[None], LAYOUT)
    plain = logits_of("triton", cache, 0)
    with settings.override(kernel_launch="paged_mqa_logits.triton.warps=8"):
        assert torch.allclose(logits_of("triton", cache, 0), plain, rtol=1e-3)
    with (
        settings.override(kernel_launch="paged_mqa_logits.triton.wraps=8"),
        pytest.raises(LaunchError, match=r"triton\.wraps' names no launch parameter; wanted one of .*warps"),
    ):
        logits_of("triton", cache, 0)
