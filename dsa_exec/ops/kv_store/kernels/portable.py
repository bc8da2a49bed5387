"""Tokens into the MLA cache, quantised on the way: each program takes a group of channels of some tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.paging import slots_to_write, store_rounded
from dsa_exec.core.kernels.quantise import bf16_codes, quantised, widened
from dsa_exec.layouts.mla_kv import GROUP
from dsa_exec.ops.kv_store import Call
from dsa_exec.ops.kv_store.launch import PortableLaunch


@triton.jit(do_not_specialize=["row_count", "slot_count"])
def _store_quantised(
    data_ptr,
    scales_ptr,
    rope_out_ptr,
    latent_ptr,
    rope_ptr,
    slots_ptr,
    latent_stride,
    rope_stride,
    row_count,
    slot_count,
    LATENT: tl.constexpr,
    GROUP: tl.constexpr,
    ROPE: tl.constexpr,
    TOKEN_BYTES: tl.constexpr,
    TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    slots, has_slot = slots_to_write(slots_ptr, rows, row_count, slot_count)
    mask = has_slot[:, None]
    group = tl.program_id(1)
    if group < LATENT // GROUP:
        channels = group * GROUP + tl.arange(0, GROUP)[None, :]
        latent = widened(tl.load(latent_ptr + rows[:, None] * latent_stride + channels, mask=mask, other=0.0))
        codes, scales = quantised(latent, False)
        tl.store(data_ptr + slots[:, None] * TOKEN_BYTES + channels, codes, mask=mask)
        tl.store(scales_ptr + slots * (TOKEN_BYTES // 4) + (LATENT // 4 + group), scales, mask=has_slot)
    else:
        rope_channels = tl.arange(0, BLOCK)[None, :]
        in_rope = mask & (rope_channels < ROPE)
        rope = widened(tl.load(rope_ptr + rows[:, None] * rope_stride + rope_channels, mask=in_rope, other=0.0))
        first_rope = (LATENT + LATENT // GROUP * 4) // 2
        at = rope_out_ptr + slots[:, None] * (TOKEN_BYTES // 2) + (first_rope + rope_channels)
        tl.store(at, bf16_codes(rope), mask=in_rope)


@triton.jit(do_not_specialize=["row_count", "slot_count"])
def _store_rounded(
    data_ptr,
    latent_ptr,
    rope_ptr,
    slots_ptr,
    latent_stride,
    rope_stride,
    row_count,
    slot_count,
    LATENT: tl.constexpr,
    ROPE: tl.constexpr,
    TOKENS: tl.constexpr,
    LATENT_BLOCK: tl.constexpr,
    ROPE_BLOCK: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)
    slots, has_slot = slots_to_write(slots_ptr, rows, row_count, slot_count)
    token_ptr = data_ptr + slots[:, None] * (LATENT + ROPE)
    for first in tl.static_range(0, LATENT, LATENT_BLOCK):
        channels = first + tl.arange(0, LATENT_BLOCK)[None, :]
        mask = has_slot[:, None] & (channels < LATENT)
        latent = tl.load(latent_ptr + rows[:, None] * latent_stride + channels, mask=mask, other=0.0)
        store_rounded(token_ptr + channels, widened(latent), mask)
    for first in tl.static_range(0, ROPE, ROPE_BLOCK):
        channels = first + tl.arange(0, ROPE_BLOCK)[None, :]
        mask = has_slot[:, None] & (channels < ROPE)
        rope = tl.load(rope_ptr + rows[:, None] * rope_stride + channels, mask=mask, other=0.0)
        store_rounded(token_ptr + (LATENT + channels), widened(rope), mask)


def launch_portable(call: Call, launch: PortableLaunch) -> None:
    """Store at least one token."""
    data, latent, rope, layout = call.cache.data.detach(), call.latent.detach(), call.rope.detach(), call.cache.layout
    programs = triton.cdiv(latent.shape[0], launch.tokens)
    rope_block = triton.next_power_of_2(max(layout.rope_dim, 1))
    tokens = (latent, rope, call.slots, latent.stride(0), rope.stride(0), latent.shape[0], call.cache.slots)
    with torch.cuda.device_of(data):
        if layout.format == "model":
            _store_rounded[(programs,)](
                data,
                *tokens,
                LATENT=layout.latent_dim,
                ROPE=layout.rope_dim,
                TOKENS=launch.tokens,
                LATENT_BLOCK=min(triton.next_power_of_2(max(layout.latent_dim, 1)), 512),
                ROPE_BLOCK=min(rope_block, 512),
                num_warps=launch.warps,
            )
            return
        _store_quantised[(programs, layout.latent_dim // GROUP + 1)](
            data,
            data.view(torch.float32),
            data.view(torch.int16),
            *tokens,
            LATENT=layout.latent_dim,
            GROUP=GROUP,
            ROPE=layout.rope_dim,
            TOKEN_BYTES=layout.token_bytes,
            TOKENS=launch.tokens,
            BLOCK=rope_block,
            num_warps=launch.warps,
        )
