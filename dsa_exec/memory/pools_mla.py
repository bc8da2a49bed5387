"""The pools of models with one MLA cache a layer: DeepSeek-V3.2 and GLM-5."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_options import KvFormat, PlanOptions
from dsa_exec.memory.pool import Pool
from dsa_exec.memory.pool_parts import pool_of

PAGE_TOKENS = 64
"""Tokens a page, if nothing else is asked for."""


def mla_layout(geometry: ModelGeometry, kv: KvFormat, page_tokens: int) -> MlaLayout:
    """The layout of an MLA cache: 656 bytes a token in fp8, 1152 in bf16, 576 in fp8-raw, in published models.

    Raises:
        LayoutError: the format cannot hold such tokens.
    """
    widths = page_tokens, geometry.latent_dim, geometry.rope_dim
    if kv == "fp8":
        return MlaLayout("fp8", *widths)
    return MlaLayout("model", *widths, element_bytes=2 if kv == "bf16" else 1)


def mla_pools(
    geometry: ModelGeometry, layers: Sequence[int], options: PlanOptions, page_tokens: int, tokens: int
) -> tuple[Pool, ...]:
    """The pools of a rank: KV of each layer, and index keys of each layer that has an indexer of its own.

    Args:
        geometry: the model.
        layers: the layers of the rank; draft layers are numbered after the last layer of the model.
        options: what is chosen.
        page_tokens: tokens a page.
        tokens: tokens of context.
    """
    indexed = [layer for layer in layers if geometry.has_own_indexer(layer)]
    index_layout = IndexKLayout(page_tokens=page_tokens, head_dim=geometry.index_head_dim)
    pools = [
        pool_of(
            "mla_kv",
            "a latent and a RoPE part for each token",
            mla_layout(geometry, options.kv, page_tokens),
            layers=layers,
            entries=tokens,
            entries_per_token=Fraction(1),
        ),
        pool_of(
            "index_k",
            "an index key for each token",
            index_layout,
            layers=indexed,
            entries=tokens,
            entries_per_token=Fraction(1),
        ),
    ]
    return tuple(pool for pool in pools if pool.layers)
