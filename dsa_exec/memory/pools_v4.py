"""The pools of DeepSeek-V4: a sliding window in every layer, compressed KV and index keys, and compressors' state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from dsa_exec.layouts.dsv4 import Fp4IndexLayout, StateLayout, V4KvLayout
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.pool import Pool
from dsa_exec.memory.pool_parts import pool_of
from dsa_exec.memory.pools_v4_state import c4_ring_rows, c128_state_pool

PAGE_TOKENS = 256
"""Tokens a page, if nothing else is asked for."""

RATIO_C4, RATIO_C128 = 4, 128


def page_multiple(geometry: ModelGeometry) -> int:
    """What a page of context must be a multiple of: whole compressed tokens, and whole windows."""
    return math.lcm(RATIO_C128, geometry.window_tokens)


def swa_tokens(tokens: int, ratio: Fraction, page_tokens: int) -> int:
    """Tokens of the sliding-window pool: floor(tokens * ratio), rounded down to whole pages of context."""
    return math.floor(tokens * ratio) // page_tokens * page_tokens


def admission_tokens(geometry: ModelGeometry, options: PlanOptions, page_tokens: int) -> int:
    """Tokens that the sliding-window pool needs for one request.

    The window and the tokens of a step, n = window - 1 + max(1, draft tokens) in a row, can begin anywhere in a page
    and then lie in ceil((n - 1) / page) + 1 pages.
    """
    in_a_row = geometry.window_tokens - 1 + max(1, options.draft_tokens)
    return (-(-(in_a_row - 1) // page_tokens) + 1) * page_tokens


def v4_pools(
    geometry: ModelGeometry,
    layers: Sequence[int],
    options: PlanOptions,
    page_tokens: int,
    tokens: int,
    requests: int,
) -> tuple[Pool, ...]:
    """The pools of a rank, those without layers left out.

    Args:
        geometry: the model.
        layers: the layers of the rank; draft layers are numbered after the last layer of the model.
        options: what is chosen.
        page_tokens: tokens a page of context, a multiple of `page_multiple`.
        tokens: tokens of context, whole pages.
        requests: requests that run at once on the rank.
    """
    c4 = [layer for layer in layers if geometry.ratio_of(layer) == RATIO_C4]
    c128 = [layer for layer in layers if geometry.ratio_of(layer) == RATIO_C128]
    window, ratio = geometry.window_tokens, options.swa_ratio
    swa = swa_tokens(tokens, ratio, page_tokens)
    c4_page, index_dim = page_tokens // RATIO_C4, geometry.index_head_dim

    def kv(page: int) -> V4KvLayout:
        return V4KvLayout(options.kv, page, geometry.latent_dim, geometry.rope_dim)

    index = IndexKLayout(page_tokens=c4_page, head_dim=index_dim)
    keys = index if options.index_k == "fp8" else Fp4IndexLayout(c4_page, index_dim)
    ring = c4_ring_rows(options.speculative)

    def c4_state(name: str, of: str, channels: int) -> Pool:
        # A row has what is compressed and its gates, both twice, because compressed groups overlap.
        return pool_of(
            name,
            f"{of} that are not yet compressed, a ring of {ring} rows for each page of the window",
            StateLayout(ring, 4 * channels, options.c4_state_bytes),
            layers=c4,
            entries=swa // window * ring,
            entries_per_token=ratio * ring / window,
        )

    def compressed(name: str, holds: str, layout: V4KvLayout | IndexKLayout | Fp4IndexLayout, each: int) -> Pool:
        has = c4 if each == RATIO_C4 else c128
        share = Fraction(1, each)
        return pool_of(name, holds, layout, layers=has, entries=tokens // each, entries_per_token=share)

    pools = [
        pool_of(
            "swa_kv",
            f"KV of the last {window} tokens of each request",
            kv(window),
            layers=layers,
            entries=swa,
            entries_per_token=ratio,
        ),
        compressed("c4_kv", "KV for every 4 tokens", kv(c4_page), RATIO_C4),
        compressed("c128_kv", "KV for every 128 tokens", kv(page_tokens // RATIO_C128), RATIO_C128),
        compressed("c4_index_k", "an index key for every 4 tokens", keys, RATIO_C4),
        c4_state("c4_state", "KV tokens", geometry.kv_width),
        c4_state("c4_index_state", "index keys", index_dim),
        c128_state_pool(geometry, c128, options, requests),
    ]
    return tuple(pool for pool in pools if pool.layers)
