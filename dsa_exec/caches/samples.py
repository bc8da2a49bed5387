"""Caches for contracts and tests, filled byte by byte, so that no op is needed to fill them."""

from __future__ import annotations

import torch

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.fnuz import without_negative_zeros
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import GROUP, MlaLayout

POISON = 0xFF
"""NaN in e4m3, bf16 and f32 alike: a byte that should have been written, or should not have been read, shows."""


def poisoned_index_k_cache(layout: IndexKLayout, pages: int, device: torch.device) -> IndexKCache:
    """An index-K cache of NaN."""
    if layout.format == "model":
        shape = (pages, layout.page_tokens, layout.head_dim)
        return IndexKCache(torch.full(shape, torch.nan, device=device), layout)
    return IndexKCache(torch.full((pages, layout.page_bytes), POISON, dtype=torch.uint8, device=device), layout)


def random_index_k_cache(
    generator: torch.Generator, layout: IndexKLayout, pages: int, device: torch.device
) -> IndexKCache:
    """An index-K cache of random keys and positive scales."""
    if layout.format == "model":
        keys = torch.randn(pages, layout.page_tokens, layout.head_dim, generator=generator)
        return IndexKCache(keys.to(device), layout)
    keys = torch.randn(pages, layout.scales_offset_bytes, generator=generator).to(E4M3)
    if layout.unsigned_zero:
        keys = without_negative_zeros(keys.view(torch.uint8))
    scales = torch.rand(pages, layout.page_tokens, generator=generator) + 0.5
    return IndexKCache(_joined(keys, scales).to(device), layout)


def poisoned_mla_cache(layout: MlaLayout, pages: int, device: torch.device) -> MlaCache:
    """An MLA cache of NaN."""
    slots = pages * layout.page_tokens
    if layout.format == "model":
        return MlaCache(torch.full((slots, layout.width), torch.nan, device=device), layout)
    return MlaCache(torch.full((slots, layout.token_bytes), POISON, dtype=torch.uint8, device=device), layout)


def random_mla_cache(generator: torch.Generator, layout: MlaLayout, pages: int, device: torch.device) -> MlaCache:
    """An MLA cache of random latents, positive scales and random RoPE parts."""
    slots = pages * layout.page_tokens
    if layout.format == "model":
        return MlaCache(torch.randn(slots, layout.width, generator=generator).to(device), layout)
    latent = torch.randn(slots, layout.latent_dim, generator=generator).to(E4M3)
    scales = torch.rand(slots, layout.latent_dim // GROUP, generator=generator) + 0.5
    rope = torch.randn(slots, layout.rope_dim, generator=generator).to(torch.bfloat16)
    return MlaCache(_joined(latent, scales, rope).to(device), layout)


def _joined(*parts: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.view(torch.uint8) for part in parts], dim=1)
