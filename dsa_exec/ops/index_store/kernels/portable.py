"""Keys into the index-K cache, quantised on the way: each program takes some tokens and writes those with a slot."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.paging import slots_to_write, store_rounded
from dsa_exec.core.kernels.quantise import quantised, rotated, widened
from dsa_exec.layouts.index_k import TILE
from dsa_exec.ops.index_store import Call
from dsa_exec.ops.index_store.launch import PortableLaunch


@triton.jit(do_not_specialize=["row_count", "slot_count"])
def _store_quantised(
    data_ptr,
    scales_ptr,
    keys_ptr,
    slots_ptr,
    key_stride,
    row_count,
    slot_count,
    PAGE_TOKENS: tl.constexpr,
    PAGE_BYTES: tl.constexpr,
    SCALES_OFFSET: tl.constexpr,
    TILE: tl.constexpr,
    HADAMARD: tl.constexpr,
    POW2: tl.constexpr,
    UNSIGNED_ZERO: tl.constexpr,
    TOKENS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    slots, has_slot = slots_to_write(slots_ptr, rows, row_count, slot_count)
    channels = tl.arange(0, 128)
    keys = widened(
        tl.load(keys_ptr + rows[:, None] * key_stride + channels[None, :], mask=has_slot[:, None], other=0.0)
    )
    if HADAMARD:
        keys = rotated(keys, TOKENS)
    codes, scales = quantised(keys, POW2)
    if UNSIGNED_ZERO:
        codes = tl.where(codes == 0x80, 0, codes)
    page = slots // PAGE_TOKENS
    token = (slots % PAGE_TOKENS)[:, None]
    if TILE:
        tile = token // TILE * (TILE * 128) + channels[None, :] // TILE * (TILE * TILE)
        place = tile + token % TILE * TILE + channels[None, :] % TILE
    else:
        place = token * 128 + channels[None, :]
    tl.store(data_ptr + (page * PAGE_BYTES)[:, None] + place, codes, mask=has_slot[:, None])
    place = page * (PAGE_BYTES // 4) + SCALES_OFFSET // 4 + slots % PAGE_TOKENS
    tl.store(scales_ptr + place, scales, mask=has_slot)


@triton.jit(do_not_specialize=["row_count", "slot_count"])
def _store_rounded(
    data_ptr,
    keys_ptr,
    slots_ptr,
    key_stride,
    row_count,
    slot_count,
    CHANNELS: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    slots, has_slot = slots_to_write(slots_ptr, rows, row_count, slot_count)
    for first in tl.static_range(0, CHANNELS, BLOCK):
        channels = first + tl.arange(0, BLOCK)
        mask = has_slot[:, None] & (channels < CHANNELS)[None, :]
        keys = tl.load(keys_ptr + rows[:, None] * key_stride + channels[None, :], mask=mask, other=0.0)
        store_rounded(data_ptr + slots[:, None] * CHANNELS + channels[None, :], widened(keys), mask)


def launch_portable(call: Call, launch: PortableLaunch) -> None:
    """Store at least one key."""
    data, keys, layout = call.cache.data, call.keys, call.cache.layout
    rows, grid = keys.shape[0], (triton.cdiv(keys.shape[0], launch.tokens),)
    with torch.cuda.device_of(data):
        if layout.format == "model":
            _store_rounded[grid](
                data.detach(),
                keys,
                call.slots,
                keys.stride(0),
                rows,
                call.cache.slots,
                CHANNELS=layout.head_dim,
                TOKENS=launch.tokens,
                BLOCK=min(triton.next_power_of_2(layout.head_dim), 512),
                num_warps=launch.warps,
            )
            return
        _store_quantised[grid](
            data,
            data.view(torch.float32),
            keys,
            call.slots,
            keys.stride(0),
            rows,
            call.cache.slots,
            PAGE_TOKENS=layout.page_tokens,
            PAGE_BYTES=layout.page_bytes,
            SCALES_OFFSET=layout.scales_offset_bytes,
            TILE=TILE if layout.order == "preshuffled" else 0,
            HADAMARD=layout.hadamard,
            POW2=layout.pow2_scale,
            UNSIGNED_ZERO=layout.unsigned_zero,
            TOKENS=launch.tokens,
            num_warps=launch.warps,
        )
