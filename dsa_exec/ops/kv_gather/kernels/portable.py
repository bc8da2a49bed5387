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
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    slots, known = request_slots(
        page_table_ptr, table_stride, seq_lens_ptr, rows, row_count, requests, pages, slot_count, PAGE_TOKENS, LENS
    )
    is_row = (rows < row_count)[:, None]
    out_ptr += rows.to(tl.int64)[:, None] * (LATENT + ROPE)
    if QUANTISED:
        for group in tl.static_range(LATENT // GROUP):
            channels = group * GROUP + tl.arange(0, GROUP)[None, :]
            codes = tl.load(data_ptr + slots[:, None] * TOKEN_BYTES + channels, mask=known[:, None], other=0)
            place = slots * (TOKEN_BYTES // 4) + (LATENT // 4 + group)
            scales = tl.load(scales_ptr + place, mask=known, other=0.0)
            store_rounded(out_ptr + channels, e4m3_values(codes) * scales[:, None], is_row)
        rope_ptr += slots[:, None] * (TOKEN_BYTES // 2) + (LATENT + LATENT // GROUP * 4) // 2
        for first in tl.static_range(0, ROPE, BLOCK):
            channels = first + tl.arange(0, BLOCK)[None, :]
            rope = tl.load(rope_ptr + channels, mask=known[:, None] & (channels < ROPE), other=0.0)
            store_rounded(out_ptr + (LATENT + channels), widened(rope), is_row & (channels < ROPE))
    else:
        for first in tl.static_range(0, LATENT + ROPE, BLOCK):
            channels = first + tl.arange(0, BLOCK)[None, :]
            in_token = channels < LATENT + ROPE
            at = data_ptr + slots[:, None] * (LATENT + ROPE) + channels
            values = tl.load(at, mask=known[:, None] & in_token, other=0.0)
            store_rounded(out_ptr + channels, widened(values), is_row & in_token)


def launch_portable(call: Call, out: torch.Tensor, launch: PortableLaunch) -> None:
    """Fill `out` [s, latent_dim + rope_dim] for at least one token."""
    data, layout, table = call.cache.data.detach(), call.cache.layout, call.page_table
    is_fp8 = layout.format == "fp8"
    channels = layout.rope_dim if is_fp8 else layout.width
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
            BLOCK=min(triton.next_power_of_2(max(channels, 1)), 128),
            num_warps=launch.warps,
        )
