"""Keys out of the index-K cache, one request after the other: each program finds the slots of some rows and copies."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.paging import request_slots
from dsa_exec.layouts.index_k import TILE
from dsa_exec.ops.index_gather import Call
from dsa_exec.ops.index_gather.launch import PortableLaunch

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
"""What elements of so many bytes are copied as: as numbers, some devices and the interpreter would change a NaN."""


@triton.jit(do_not_specialize=["row_count", "requests", "pages", "slot_count", "table_stride"])
def _gather(
    data_ptr,
    scales_ptr,
    page_table_ptr,
    seq_lens_ptr,
    keys_out_ptr,
    scales_out_ptr,
    table_stride,
    row_count,
    requests,
    pages,
    slot_count,
    CHANNELS: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    PAGE_ELEMENTS: tl.constexpr,
    SCALES_OFFSET: tl.constexpr,
    HAS_SCALES: tl.constexpr,
    TILE: tl.constexpr,
    TOKENS: tl.constexpr,
    LENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    first_row = tl.program_id(0) * TOKENS
    rows = first_row + tl.arange(0, TOKENS)
    slots, known = request_slots(
        page_table_ptr,
        table_stride,
        seq_lens_ptr,
        first_row,
        row_count,
        requests,
        pages,
        slot_count,
        PAGE_TOKENS,
        TOKENS,
        LENS,
    )
    page = slots // PAGE_TOKENS
    token = (slots % PAGE_TOKENS)[:, None]
    is_row = (rows < row_count)[:, None]
    for first in tl.static_range(0, CHANNELS, BLOCK):
        channels = (first + tl.arange(0, BLOCK))[None, :]
        if TILE:
            tile = token // TILE * (TILE * CHANNELS) + channels // TILE * (TILE * TILE)
            place = tile + token % TILE * TILE + channels % TILE
        else:
            place = token * CHANNELS + channels
        in_key = channels < CHANNELS
        at = data_ptr + (page * PAGE_ELEMENTS)[:, None] + place
        keys = tl.load(at, mask=known[:, None] & in_key, other=0)
        tl.store(keys_out_ptr + rows.to(tl.int64)[:, None] * CHANNELS + channels, keys, mask=is_row & in_key)
    if HAS_SCALES:
        place = page * (PAGE_ELEMENTS // 4) + SCALES_OFFSET // 4 + slots % PAGE_TOKENS
        scales = tl.load(scales_ptr + place, mask=known, other=0)
        tl.store(scales_out_ptr + rows, scales, mask=rows < row_count)


def launch_portable(call: Call, keys: torch.Tensor, scales: torch.Tensor | None, launch: PortableLaunch) -> None:
    """Fill `keys` [s, head_dim] and, in the fp8 format, `scales`, f32 [s], for at least one token."""
    layout = call.cache.layout
    bits = _BITS[layout.element_bytes]
    data, table = call.cache.data.view(bits), call.page_table
    with torch.cuda.device_of(data):
        _gather[(triton.cdiv(call.total_tokens, launch.tokens),)](
            data,
            data if scales is None else data.view(torch.int32),
            table,
            call.seq_lens,
            keys.view(bits),
            keys.view(bits) if scales is None else scales.view(torch.int32),
            table.stride(0),
            call.total_tokens,
            call.seq_lens.shape[0],
            table.shape[1],
            call.cache.slots,
            CHANNELS=layout.head_dim,
            PAGE_TOKENS=layout.page_tokens,
            PAGE_ELEMENTS=layout.page_bytes // layout.element_bytes,
            SCALES_OFFSET=layout.scales_offset_bytes,
            HAS_SCALES=scales is not None,
            TILE=TILE if layout.order == "preshuffled" else 0,
            TOKENS=launch.tokens,
            LENS=launch.lens,
            BLOCK=min(triton.next_power_of_2(layout.head_dim), 512),
            num_warps=launch.warps,
        )
