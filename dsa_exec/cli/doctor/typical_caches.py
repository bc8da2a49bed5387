"""Caches as they would be allocated now, on the device assumed, without memory.

Unlike an allocation, that is told to nobody: no moment has passed, and nothing is logged.
"""

from __future__ import annotations

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.index_k_pages import decide_pages
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.fnuz import reads_fnuz
from dsa_exec.core.hardware import capabilities
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.paging import pages_for

LATENT, ROPE, KEY = 512, 64, 128
"""Channels of DeepSeek-V3.2: of a latent, of its RoPE part, and of an index key."""

BF16 = torch.bfloat16


def meta(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor that has a shape, and no memory."""
    return torch.empty(*shape, dtype=dtype, device="meta")


def index_k_cache(slots: int) -> IndexKCache:
    """An index-K cache of at least so many tokens."""
    hw, format = capabilities(torch.device("meta")), settings.index_k_format
    decision = decide_pages(format, hw)
    pages = pages_for(slots, decision.page_tokens)
    if format == "model":
        layout = IndexKLayout("model", decision.page_tokens, KEY, decision.order, element_bytes=BF16.itemsize)
        return IndexKCache(meta(pages, decision.page_tokens, KEY, dtype=BF16), layout, decision)
    unsigned_zero = hw.is_hip and reads_fnuz(hw.arch)
    layout = IndexKLayout("fp8", decision.page_tokens, KEY, decision.order, unsigned_zero=unsigned_zero)
    return IndexKCache(meta(pages, layout.page_bytes, dtype=torch.uint8), layout, decision)


def mla_layout() -> MlaLayout:
    """How an MLA cache would be laid out."""
    return MlaLayout(settings.kv_format, latent_dim=LATENT, rope_dim=ROPE)


def mla_cache(slots: int) -> MlaCache:
    """An MLA cache of at least so many tokens."""
    layout = mla_layout()
    rounded = pages_for(slots, layout.page_tokens) * layout.page_tokens
    if layout.format == "model":
        return MlaCache(meta(rounded, layout.width, dtype=BF16), layout)
    return MlaCache(meta(rounded, layout.token_bytes, dtype=torch.uint8), layout)
