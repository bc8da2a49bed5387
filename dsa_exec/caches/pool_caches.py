"""What one pool has for one layer: a cache object where ops of this package take one, and else a tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.index_k_pages import pages_for_allocation
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.fnuz import reads_fnuz
from dsa_exec.core.hardware import capabilities
from dsa_exec.layouts.dsv4 import Fp4IndexLayout, StateLayout, V4KvLayout
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.pool import Pool

LayerCache = MlaCache | IndexKCache | torch.Tensor

_STATE_DTYPES = {4: torch.float32, 2: torch.bfloat16}


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """How index keys are made, which costs no bytes, but which readers must know.

    Attributes:
        pow2_scale: scales are rounded up to powers of two.
        hadamard: keys are rotated before they are quantised.
    """

    pow2_scale: bool = False
    hadamard: bool = False


def layer_cache(geometry: ModelGeometry, pool: Pool, device: torch.device, keys: KeyOptions) -> LayerCache:
    """A zeroed cache of `pool.layer_bytes` bytes.

    Args:
        geometry: the model.
        pool: what is planned. Its layout goes to the cache; where index keys lie in another order on the device, or
            without -0, the cache's layout says so, which changes no size.
        device: where.
        keys: how index keys are made.

    Raises:
        LayoutError: no kernel of the device takes index-K pages of this size.
    """
    layout = pool.layout
    if isinstance(layout, MlaLayout):
        return _mla(pool, layout, device)
    if isinstance(layout, IndexKLayout):
        return _index_k(geometry, pool, layout, device, keys)
    return torch.zeros(_shape(pool, layout), dtype=_dtype(layout), device=device)


def _mla(pool: Pool, layout: MlaLayout, device: torch.device) -> LayerCache:
    slots = pool.pages * layout.page_tokens
    if layout.format == "fp8":
        return MlaCache(torch.zeros(slots, layout.token_bytes, dtype=torch.uint8, device=device), layout)
    if layout.element_bytes == 1:  # fp8-raw: no op of this package reads it
        return torch.zeros(slots, layout.width, dtype=torch.uint8, device=device)
    return MlaCache(torch.zeros(slots, layout.width, dtype=torch.bfloat16, device=device), layout)


def _index_k(
    geometry: ModelGeometry, pool: Pool, planned: IndexKLayout, device: torch.device, keys: KeyOptions
) -> IndexKCache:
    """Index keys in the order that the device's kernels take; V4's compressed keys in the pages that are planned."""
    hw = capabilities(device)
    decision = None if geometry.compressed else pages_for_allocation("fp8", hw, planned.page_tokens, None)
    layout = IndexKLayout(
        "fp8",
        planned.page_tokens,
        planned.head_dim,
        planned.order if decision is None else decision.order,
        pow2_scale=keys.pow2_scale,
        hadamard=keys.hadamard,
        unsigned_zero=hw.is_hip and reads_fnuz(hw.arch),
    )
    data = torch.zeros(pool.pages, layout.page_bytes, dtype=torch.uint8, device=device)
    return IndexKCache(data, layout, decision)


def _shape(pool: Pool, layout: V4KvLayout | Fp4IndexLayout | StateLayout) -> tuple[int, ...]:
    if isinstance(layout, StateLayout):
        return pool.pages, layout.page_tokens, layout.width
    if isinstance(layout, V4KvLayout) and layout.format != "fp8":
        return pool.pages, layout.page_tokens, layout.nope_dim + layout.rope_dim
    return pool.pages, layout.page_bytes


def _dtype(layout: V4KvLayout | Fp4IndexLayout | StateLayout) -> torch.dtype:
    if isinstance(layout, StateLayout):
        return _STATE_DTYPES[layout.element_bytes]
    return torch.bfloat16 if isinstance(layout, V4KvLayout) and layout.format == "bf16" else torch.uint8
