"""Sparse MLA decode in plain Triton, for every cache and dtype: heads are the rows of products, tokens the columns.

A program has a row, a block of heads, a block of latent channels and a slice of the row's slots. It uses each tile
twice: for the scores, and as values. Other blocks' latents, where there are several, go into its scores only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.hardware import capabilities
from dsa_exec.core.kernels.attention import LOG2_E, finish_softmax, named_rows, softmax_step
from dsa_exec.core.kernels.mla_cache import GROUP, load_latents, load_rope
from dsa_exec.core.triton_support import is_interpreted
from dsa_exec.layouts.views import mla_rope_view, mla_scale_view
from dsa_exec.ops.sparse_mla_decode import Call
from dsa_exec.ops.sparse_mla_decode.kernels.combine import Parts, combine
from dsa_exec.ops.sparse_mla_decode.launch import PortableLaunch, slice_tokens

_TRITON = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


# Numbers that bring nothing to the generated code but more versions of it.
@triton.jit(do_not_specialize=["slot_count", "heads", "k", "per_slice", "slices"])
def decode_kernel(
    q,
    latents,
    scales,
    ropes,
    slots,
    lengths,
    sink,
    out,
    lse,
    scale,
    slot_count,
    heads,
    k,
    per_slice,
    slices,
    q_row_stride,
    q_head_stride,
    latent_stride,
    scale_stride,
    rope_stride,
    slot_row_stride,
    LATENT_DIM: tl.constexpr,
    ROPE_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROPE: tl.constexpr,
    FP8: tl.constexpr,
    NATIVE_E4M3: tl.constexpr,
    DTYPE: tl.constexpr,
    ROPE_DTYPE: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_SINK: tl.constexpr,
    HAS_LENGTHS: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Programs are in the order of slices, blocks of channels, blocks of heads, rows."""
    blocks: tl.constexpr = (LATENT_DIM + CHANNELS - 1) // CHANNELS
    rope_blocks: tl.constexpr = (ROPE_DIM + ROPE - 1) // ROPE
    program = tl.program_id(0)
    part = program % slices
    block = program // slices % blocks
    head_blocks = tl.cdiv(heads, HEADS)
    head = program // (slices * blocks) % head_blocks * HEADS + tl.arange(0, HEADS)
    row = (program // (slices * blocks) // head_blocks).to(tl.int64)
    if HAS_LENGTHS:
        # Slices of what there is: one that has nothing to do would leave the others with as much as before.
        k = tl.minimum(k, tl.maximum(tl.load(lengths + row), 0))
        per_slice = tl.cdiv(tl.cdiv(k, TOKENS), slices) * TOKENS
    begin = part * per_slice
    end = tl.minimum(begin + per_slice, k)

    slots += row * slot_row_stride
    has_head = head < heads
    q += row * q_row_stride + head.to(tl.int64)[:, None] * q_head_stride
    channel = block * CHANNELS + tl.arange(0, CHANNELS)
    is_value = channel < LATENT_DIM
    query = tl.load(q + channel[None, :], mask=has_head[:, None] & is_value[None, :], other=0.0).to(DTYPE)
    rope_channel = tl.arange(0, ROPE)
    if rope_blocks == 1:
        has_rope = has_head[:, None] & (rope_channel < ROPE_DIM)[None, :]
        rope_query = tl.load(q + LATENT_DIM + rope_channel[None, :], mask=has_rope, other=0.0).to(ROPE_DTYPE)

    top = tl.full((HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((HEADS,), tl.float32)
    summed = tl.zeros((HEADS, CHANNELS), tl.float32)
    token = tl.arange(0, TOKENS)
    for start in tl.range(begin, end, TOKENS, num_stages=STAGES):
        picked = tl.load(slots + start + token, mask=start + token < end, other=-1)
        named, slot = named_rows(picked, slot_count)
        tile = load_latents(
            latents, scales, slot, named, block * CHANNELS, latent_stride, scale_stride,
            LATENT_DIM, CHANNELS, FP8, NATIVE_E4M3, DTYPE,
        )  # fmt: skip
        scores = tl.dot(query, tl.trans(tile), input_precision="ieee")
        for other in tl.static_range(1, blocks):
            first = (block + other) % blocks * CHANNELS
            more = load_latents(
                latents, scales, slot, named, first, latent_stride, scale_stride,
                LATENT_DIM, CHANNELS, FP8, NATIVE_E4M3, DTYPE,
            )  # fmt: skip
            beside = first + tl.arange(0, CHANNELS)
            has_more = has_head[:, None] & (beside < LATENT_DIM)[None, :]
            query_more = tl.load(q + beside[None, :], mask=has_more, other=0.0).to(DTYPE)
            scores = tl.dot(query_more, tl.trans(more), scores, input_precision="ieee")
        for step in tl.static_range(rope_blocks):
            if rope_blocks > 1:
                has_rope = has_head[:, None] & (step * ROPE + rope_channel < ROPE_DIM)[None, :]
                rope_at = q + LATENT_DIM + step * ROPE + rope_channel[None, :]
                rope_query = tl.load(rope_at, mask=has_rope, other=0.0).to(ROPE_DTYPE)
            rope = load_rope(ropes, slot, named, step * ROPE, rope_stride, ROPE_DIM, ROPE, ROPE_DTYPE)
            scores = tl.dot(rope_query, tl.trans(rope), scores, input_precision="ieee")
        weights, decay, top, total = softmax_step(scores * scale, named, top, total)
        summed = tl.dot(weights.to(DTYPE), tile, summed * decay[:, None], input_precision="ieee")

    place = (row * slices + part) * heads + head
    first_block = head < tl.where(block == 0, heads, 0)
    if PARTS:
        nothing = total == 0.0
        factor = tl.where(nothing, 0.0, 1.0 / tl.where(nothing, 1.0, total))
        tops = tl.where(nothing, float("-inf"), top + tl.log2(tl.where(nothing, 1.0, total)))
        tl.store(lse + place, tops, mask=first_block)
    else:
        if HAS_SINK:
            sinks = tl.load(sink + head, mask=has_head, other=float("-inf"))
        else:
            sinks = tl.full((HEADS,), float("-inf"), tl.float32)
        factor, row_lse = finish_softmax(top, total, sinks)
        tl.store(lse + place, row_lse, mask=first_block)
    out += (place * LATENT_DIM)[:, None] + channel[None, :]
    tl.store(out, (summed * factor[:, None]).to(out.dtype.element_ty), mask=has_head[:, None] & is_value[None, :])


def product_dtypes(call: Call, *, bf16: bool) -> tuple[torch.dtype, torch.dtype]:
    """The dtypes in which latents and RoPE parts are multiplied: f32 wherever another would lose what the inputs have.

    Under the interpreter, which multiplies bfloat16 wrongly, everything is f32.
    """
    wanted, layout = call.q.dtype, call.cache.layout
    if is_interpreted() or wanted == torch.float32:
        return torch.float32, torch.float32
    if layout.format == "model":
        return (wanted, wanted) if call.cache.data.dtype == wanted else (torch.float32, torch.float32)
    return (torch.bfloat16 if bf16 and wanted == torch.bfloat16 else torch.float16), wanted


def attend(call: Call, launch: PortableLaunch) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the kernels.

    Returns:
        out [t, h, latent_dim] in q's dtype and lse f32 [t, h], as the public function describes them.
    """
    q, layout, data = call.q, call.cache.layout, call.cache.data
    rows, heads, _ = q.shape
    k, latent_dim, fp8 = call.slots.shape[1], layout.latent_dim, layout.format == "fp8"
    # Interpreted, a cast to bfloat16 truncates: torch rounds the result.
    out = q.new_empty(rows, heads, latent_dim, dtype=torch.float32 if is_interpreted() else None)
    lse = q.new_empty(rows, heads, dtype=torch.float32)
    if rows * heads == 0:
        return out.to(q.dtype), lse
    if k == 0:
        return out.zero_().to(q.dtype), lse.fill_(-torch.inf)
    per_slice, slices = slice_tokens(k, launch.slices, launch.tokens)
    parts = Parts.like(out, slices, torch.float32) if slices > 1 else None
    scales = mla_scale_view(data, layout) if fp8 else None
    ropes = mla_rope_view(data, layout) if fp8 else data[:, latent_dim:]
    dtype, rope_dtype = product_dtypes(call, bf16=launch.bf16)
    channels = max(launch.channels, GROUP.value) if fp8 else launch.channels
    arch = capabilities(q.device).arch
    since_hopper = arch.startswith("sm") and int(arch[2:]) >= 90
    blocks = triton.cdiv(latent_dim, channels) * triton.cdiv(heads, launch.heads)
    with torch.cuda.device_of(q):
        decode_kernel[(rows * blocks * slices,)](
            q,
            data,
            scales,
            ropes,
            call.slots,
            call.topk_length,
            call.attn_sink,
            out if parts is None else parts.sums,
            lse if parts is None else parts.tops,
            call.sm_scale * LOG2_E.value,
            call.cache.slots,
            heads,
            k,
            per_slice,
            slices,
            q.stride(0),
            q.stride(1),
            data.stride(0),
            scales.stride(0) if scales is not None else 0,
            ropes.stride(0),
            call.slots.stride(0),
            LATENT_DIM=latent_dim,
            ROPE_DIM=layout.rope_dim,
            HEADS=launch.heads,
            TOKENS=launch.tokens,
            CHANNELS=channels,
            ROPE=launch.rope,
            FP8=fp8,
            NATIVE_E4M3=since_hopper,
            DTYPE=_TRITON[dtype],
            ROPE_DTYPE=_TRITON[rope_dtype],
            PARTS=parts is not None,
            HAS_SINK=call.attn_sink is not None,
            HAS_LENGTHS=call.topk_length is not None,
            STAGES=launch.stages,
            num_warps=launch.warps,
        )
        if parts is not None:
            combine(parts, call.attn_sink, out, lse, overlap=since_hopper)
    return out.to(q.dtype), lse
