"""Tokens out of the MLA cache, dequantised: each program finds the slots of some rows and reads them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.paging import request_slots, store_rounded
from dsa_exec.core.kernels.quantise import e4m3_values, widened
from dsa_exec.layouts.mla_kv import GROUP
from dsa_exec.ops.kv_gather import Call
from dsa_exec.ops.kv_gather.launch import PortableLaunch


@triton.jit(do_not_specialize=["row_count", "requests", "pages", "slot_count", "table_stride"])
def _gather(
    data_ptr,
    scales_ptr,
    rope_ptr,
    page_table_ptr,
    seq_lens_ptr,
    out_ptr,
    table_stride,
    row_count,
    requests,
    pages,
    slot_count,
    QUANTISED: tl.constexpr,
    LATENT: tl.constexpr,
    GROUP: tl.constexpr,
    ROPE: tl.constexpr,
    TOKEN_BYTES: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    TOKENS: tl.constexpr,
    LENS: tl.constexpr,
    GROUPS: tl.constexpr,
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
    is_row = (rows < row_count)[:, None]
    slots = slots[:, None]
    known = known[:, None]
    out_ptr += rows.to(tl.int64)[:, None] * (LATENT + ROPE)
    if QUANTISED:
        # All of it is loaded before anything is stored, so that no load waits for a store.
        group = tl.arange(0, GROUPS)[None, :]
        is_group = group < LATENT // GROUP
        place = slots * (TOKEN_BYTES // 4) + (LATENT // 4 + group)
        scales = tl.load(scales_ptr + place, mask=known & is_group, other=0.0)
        latent = (group * GROUP)[:, :, None] + tl.arange(0, GROUP)[None, None, :]
        at = data_ptr + (slots * TOKEN_BYTES)[:, :, None] + latent
        codes = tl.load(at, mask=(known & is_group)[:, :, None], other=0)
        channels = tl.arange(0, BLOCK)[None, :]
        in_rope = channels < ROPE
        place = slots * (TOKEN_BYTES // 2) + (LATENT + LATENT // GROUP * 4) // 2 + channels
        rope = tl.load(rope_ptr + place, mask=known & in_rope, other=0.0)
        values = e4m3_values(codes) * scales[:, :, None]
        store_rounded(out_ptr[:, :, None] + latent, values, (is_row & is_group)[:, :, None])
        store_rounded(out_ptr + (LATENT + channels), widened(rope), is_row & in_rope)
    else:
        for first in tl.static_range(0, LATENT + ROPE, BLOCK):
            channels = first + tl.arange(0, BLOCK)[None, :]
            in_token = channels < LATENT + ROPE
            at = data_ptr + slots * (LATENT + ROPE) + channels
            values = tl.load(at, mask=known & in_token, other=0.0)
            store_rounded(out_ptr + channels, widened(values), is_row & in_token)


def launch_portable(call: Call, out: torch.Tensor, launch: PortableLaunch) -> None:
    """Fill `out` [s, latent_dim + rope_dim] for at least one token."""
    data, layout, table = call.cache.data.detach(), call.cache.layout, call.page_table
    is_fp8 = layout.format == "fp8"
    block = triton.next_power_of_2(max(layout.rope_dim if is_fp8 else layout.width, 1))
    with torch.cuda.device_of(data):
        _gather[(triton.cdiv(call.total_tokens, launch.tokens),)](
            data,
            data.view(torch.float32) if is_fp8 else data,
            data.view(torch.bfloat16) if is_fp8 else data,
            table,
            call.seq_lens,
            out,
            table.stride(0),
            call.total_tokens,
            call.seq_lens.shape[0],
            table.shape[1],
            call.cache.slots,
            QUANTISED=is_fp8,
            LATENT=layout.latent_dim,
            GROUP=GROUP,
            ROPE=layout.rope_dim,
            TOKEN_BYTES=layout.token_bytes,
            PAGE_TOKENS=layout.page_tokens,
            TOKENS=launch.tokens,
            LENS=launch.lens,
            GROUPS=triton.next_power_of_2(max(layout.latent_dim // GROUP, 1)),
            BLOCK=block if is_fp8 else min(block, 1024),
            num_warps=launch.warps,
        )
