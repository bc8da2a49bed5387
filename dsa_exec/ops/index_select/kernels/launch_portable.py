"""Launch the portable kernels of `index_select`."""

from __future__ import annotations

from typing import Any

import torch

from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import TILE
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys
from dsa_exec.ops.index_select.kernels.gathered import select_gathered
from dsa_exec.ops.index_select.kernels.merge import merge_gathered, merge_paged
from dsa_exec.ops.index_select.kernels.paged import select_paged
from dsa_exec.ops.index_select.launch import PortableLaunch, power_of_two


def select_of_gathered(
    q: torch.Tensor, head_weights: torch.Tensor, keys: GatheredKeys, k: int, launch: PortableLaunch, arithmetic: str
) -> torch.Tensor:
    """Positions that rows select of gathered keys, int32 [t, k].

    Args:
        q: as of `index_select`, one row at least.
        head_weights: likewise.
        keys: likewise, one key at least.
        k: likewise.
        launch: the launch parameters.
        arithmetic: what queries and keys are turned into (`core/kernels/operands.py`).
    """
    t, heads, channels = q.shape
    s = keys.keys.shape[0]
    groups, spans = launch.groups(t), launch.spans(s)
    grid = launch.grid(groups, s)
    candidates, counts, picked = _memory(q, grid, t, k, launch)
    select_gathered[(grid,)](
        _stored(q, arithmetic),
        _stored(keys.keys, arithmetic),
        head_weights if keys.scales is None else keys.scales,
        head_weights,
        keys.starts,
        keys.ends,
        candidates,
        counts,
        picked,
        t,
        s,
        k,
        groups,
        spans,
        launch.span_keys,
        q.stride(0),
        q.stride(1),
        keys.keys.stride(0),
        head_weights.stride(0),
        SCALED=keys.scales is not None,
        **_constants(heads, channels, launch, arithmetic),
    )
    if spans > 1:
        sizes = t, s, k, groups, spans
        merge_gathered[(t,)](candidates, counts, keys.starts, keys.ends, picked, *sizes, **_merging(launch))
    return picked


def select_of_paged(
    q: torch.Tensor,
    head_weights: torch.Tensor,
    keys: PagedKeys,
    k: int,
    launch: PortableLaunch,
    arithmetic: str,
    *,
    to_slots: bool,
) -> torch.Tensor:
    """Slots, or without `to_slots` positions, that rows select of cached keys, int32 [b * n, k]; else as above."""
    requests, next_n, heads, channels = q.shape
    layout, data, table = keys.cache.layout, keys.cache.data, keys.page_table
    width = table.shape[1] * layout.page_tokens
    quantised = layout.format == "fp8"
    groups, spans = launch.groups(next_n) * requests, launch.spans(width)
    grid = launch.grid(groups, width)
    candidates, counts, picked = _memory(q, grid, requests * next_n, k, launch)
    select_paged[(grid,)](
        _stored(q, arithmetic),
        _stored(data.view(E4M3), arithmetic) if quantised else data,
        data.view(torch.float32) if quantised else head_weights,
        head_weights,
        keys.context_lens,
        table,
        candidates,
        counts,
        picked,
        requests,
        next_n,
        k,
        groups,
        spans,
        launch.span_keys,
        width,
        table.shape[1],
        data.shape[0],
        keys.cache.slots,
        q.stride(0),
        q.stride(1),
        q.stride(2),
        head_weights.stride(0),
        keys.context_lens.stride(0),
        table.stride(0),
        PAGE=layout.page_tokens,
        TILED=TILE if layout.order == "preshuffled" else 0,
        SCALED=quantised,
        TO_SLOTS=to_slots,
        **_constants(heads, channels, launch, arithmetic),
    )
    if spans > 1:
        sizes = next_n, width, k, groups, spans, requests, table.shape[1], layout.page_tokens, keys.cache.slots
        merge_paged[(requests * next_n,)](
            candidates,
            counts,
            keys.context_lens,
            table,
            picked,
            *sizes,
            keys.context_lens.stride(0),
            table.stride(0),
            TO_SLOTS=to_slots,
            **_merging(launch),
        )
    return picked


def _memory(
    q: torch.Tensor, grid: int, rows: int, k: int, launch: PortableLaunch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    candidates = q.new_empty(grid * launch.rows, launch.capacity, dtype=torch.int64)
    counts = q.new_empty(grid * launch.rows, dtype=torch.int32)
    return candidates, counts, q.new_empty(rows, k, dtype=torch.int32)


def _stored(tensor: torch.Tensor, arithmetic: str) -> torch.Tensor:
    """Codes of e4m3 as bytes, where the kernel turns them into other numbers."""
    return tensor.view(torch.uint8) if tensor.dtype is E4M3 and arithmetic != "same" else tensor


def _constants(heads: int, channels: int, launch: PortableLaunch, arithmetic: str) -> dict[str, Any]:
    return {
        "HEADS": heads,
        "PADDED_HEADS": power_of_two(heads),
        "CHANNELS": channels,
        "ROWS": launch.rows,
        "PART": launch.channels,
        "TILE": launch.tile_keys,
        "CAPACITY": launch.capacity,
        "BLOCK": launch.block,
        "STAGES": launch.stages,
        "AS": arithmetic,
        "num_warps": launch.warps,
    }


def _merging(launch: PortableLaunch) -> dict[str, Any]:
    return {"ROWS": launch.rows, "CAPACITY": launch.capacity, "BLOCK": launch.block, "num_warps": 4}
