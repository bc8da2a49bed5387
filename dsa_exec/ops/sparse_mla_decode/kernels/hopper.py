"""Sparse MLA decode on Hopper: one warpgroup or two multiply, one or two others gather from the FP8 cache.

A program has one row, a block of heads and a slice of the row's slots. Its tiles go round a ring of buffers in shared
memory, from `gather.py` to `products.py`. Slices of a row are put together by `combine.py`.
"""

from __future__ import annotations

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier

from dsa_exec.ops.sparse_mla_decode import Call
from dsa_exec.ops.sparse_mla_decode.kernels.combine import Parts, combine
from dsa_exec.ops.sparse_mla_decode.kernels.gather import AWAIT_KERNEL_BEFORE, TOKENS, gather_tiles, ptx, seen_as
from dsa_exec.ops.sparse_mla_decode.kernels.products import LATENT, LOG2_E, ROPE_CHANNELS, attend_slice
from dsa_exec.ops.sparse_mla_decode.launch import HopperLaunch, roles_of, slice_tokens


# Numbers that bring nothing to the generated code but more versions of it.
@gluon.jit(do_not_specialize=["slot_count", "heads", "k", "per_slice", "slices"])
def decode_kernel(
    q,
    cache,
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
    slot_row_stride,
    HEADS: gl.constexpr,
    BLOCKS: gl.constexpr,
    PRODUCERS: gl.constexpr,
    BUFFERS: gl.constexpr,
    GATHER_REGISTERS: gl.constexpr,
    PARTS: gl.constexpr,
    HAS_SINK: gl.constexpr,
    HAS_LENGTHS: gl.constexpr,
    RAW: gl.constexpr,
    BF16: gl.constexpr,
    OVERLAP: gl.constexpr,
):
    """Programs are in the order of blocks of heads, rows, slices: blocks share in L2 what they gather."""
    LATENT_TYPE: gl.constexpr = gl.bfloat16 if BF16 else gl.float16
    OPERAND: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    WORDS: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=32, rank=2)
    WEIGHTS: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=HEADS * 2, element_bitwidth=16, rank=2)
    head = gl.program_id(0) % BLOCKS * HEADS
    row = (gl.program_id(0) // BLOCKS).to(gl.int64)
    part = gl.program_id(1)
    begin = part * per_slice
    end = gl.minimum(begin + per_slice, k)
    q += row * q_row_stride
    slots += row * slot_row_stride
    place = (row * slices + part) * heads

    latent_queries = gl.allocate_shared_memory(LATENT_TYPE, [HEADS, LATENT], OPERAND)
    rope_queries = gl.allocate_shared_memory(gl.bfloat16, [HEADS, ROPE_CHANNELS], OPERAND)
    # The same bytes as words, to be written, and as operands of products.
    latent_words = gl.allocate_shared_memory(gl.int32, [BUFFERS, TOKENS, LATENT // 2], WORDS)
    rope_words = gl.allocate_shared_memory(gl.int32, [BUFFERS, TOKENS, ROPE_CHANNELS // 2], WORDS)
    latents = seen_as(latent_words, LATENT_TYPE, [BUFFERS, TOKENS, LATENT], OPERAND)
    ropes = seen_as(rope_words, gl.bfloat16, [BUFFERS, TOKENS, ROPE_CHANNELS], OPERAND)
    # Slices are rounded as latents are, eight times finer than the output with float16, and take half of f32's time.
    outputs = seen_as(latent_words, LATENT_TYPE if PARTS else gl.bfloat16, [BUFFERS, TOKENS, LATENT], OPERAND)
    SCALES: gl.constexpr = gl.SwizzledSharedLayout(vec=1, per_phase=1, max_phase=1, order=[1, 0])
    scale_words = gl.allocate_shared_memory(gl.int32, [BUFFERS, TOKENS, 4], SCALES)
    # Of each group of channels. One buffer with four parts would be waited for between writes to its parts.
    w0 = gl.allocate_shared_memory(LATENT_TYPE, [TOKENS, HEADS], WEIGHTS)
    w1 = w0
    w2 = w0
    w3 = w0
    if RAW:
        w1 = gl.allocate_shared_memory(LATENT_TYPE, [TOKENS, HEADS], WEIGHTS)
        w2 = gl.allocate_shared_memory(LATENT_TYPE, [TOKENS, HEADS], WEIGHTS)
        w3 = gl.allocate_shared_memory(LATENT_TYPE, [TOKENS, HEADS], WEIGHTS)
    full = gl.allocate_shared_memory(gl.int64, [BUFFERS, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [BUFFERS, 1], mbarrier.MBarrierLayout())
    for buffer in gl.static_range(BUFFERS):
        mbarrier.init(full.index(buffer), count=1)
        mbarrier.init(empty.index(buffer), count=1)
    if OVERLAP:
        # Nothing is read or written before: it may still belong to the kernels before this one.
        ptx(AWAIT_KERNEL_BEFORE, "=r", [])
    if HAS_LENGTHS:
        # Slices of what there is: one that has nothing to do would leave the others with as much as before.
        end = gl.minimum(k, gl.maximum(gl.load(lengths + row), 0))
        per_slice = (end + TOKENS * slices - 1) // (TOKENS * slices) * TOKENS
        begin = part * per_slice
        end = gl.minimum(begin + per_slice, end)
    # The tuples of arguments must stand here: one that comes from a variable is not lowered.
    if PRODUCERS == 1:
        gl.warp_specialize(
            [
                (
                    attend_slice,
                    (
                        q, slots, sink, out, lse, scale, begin, end, slot_count, head, heads, q_head_stride, place,
                        latent_queries, rope_queries, latents, ropes, scale_words, w0, w1, w2, w3, outputs,
                        full, empty, BUFFERS, PARTS, HAS_SINK, RAW,
                    ),
                ),
                (
                    gather_tiles,
                    (
                        cache, slots, begin, end, slot_count, latent_words, rope_words, scale_words, full, empty,
                        0, PRODUCERS, BUFFERS, RAW, BF16, OVERLAP,
                    ),
                ),
            ],
            [4],
            [GATHER_REGISTERS],
        )  # fmt: skip
    else:
        gl.warp_specialize(
            [
                (
                    attend_slice,
                    (
                        q, slots, sink, out, lse, scale, begin, end, slot_count, head, heads, q_head_stride, place,
                        latent_queries, rope_queries, latents, ropes, scale_words, w0, w1, w2, w3, outputs,
                        full, empty, BUFFERS, PARTS, HAS_SINK, RAW,
                    ),
                ),
                (
                    gather_tiles,
                    (
                        cache, slots, begin, end, slot_count, latent_words, rope_words, scale_words, full, empty,
                        0, PRODUCERS, BUFFERS, RAW, BF16, OVERLAP,
                    ),
                ),
                (
                    gather_tiles,
                    (
                        cache, slots, begin, end, slot_count, latent_words, rope_words, scale_words, full, empty,
                        1, PRODUCERS, BUFFERS, RAW, BF16, OVERLAP,
                    ),
                ),
            ],
            [4, 4],
            [GATHER_REGISTERS, GATHER_REGISTERS],
        )  # fmt: skip


def attend(call: Call, launch: HopperLaunch) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the kernels.

    Returns:
        out bf16 [t, h, 512] and lse f32 [t, h], as the public function describes them.

    Raises:
        LaunchError: no roles are known for so many heads a program.
    """
    roles = roles_of(launch.heads)
    q, slots, cache = call.q, call.slots, call.cache
    rows, heads, _ = q.shape
    k = slots.shape[1]
    out = q.new_empty(rows, heads, LATENT.value)
    lse = q.new_empty(rows, heads, dtype=torch.float32)
    if rows * heads == 0:
        return out, lse
    if k == 0:
        return out.zero_(), lse.fill_(-torch.inf)
    per_slice, slices = slice_tokens(k, launch.slices, TOKENS.value)
    blocks = triton.cdiv(heads, launch.heads)
    rounded = torch.bfloat16 if launch.bf16 else torch.float16
    parts = Parts.like(out, slices, rounded) if slices > 1 else None
    with torch.cuda.device_of(q):
        decode_kernel[(rows * blocks, slices)](
            q,
            cache.data.view(torch.int32),
            slots,
            call.topk_length,
            call.attn_sink,
            out if parts is None else parts.sums,
            lse if parts is None else parts.tops,
            call.sm_scale * LOG2_E.value,
            cache.slots,
            heads,
            k,
            per_slice,
            slices,
            q.stride(0),
            q.stride(1),
            slots.stride(0),
            HEADS=launch.heads,
            BLOCKS=blocks,
            PRODUCERS=roles.producers,
            BUFFERS=roles.buffers,
            GATHER_REGISTERS=roles.gather_registers,
            PARTS=parts is not None,
            HAS_SINK=call.attn_sink is not None,
            HAS_LENGTHS=call.topk_length is not None,
            RAW=roles.raw,
            BF16=bool(launch.bf16),
            OVERLAP=bool(launch.overlap),
            num_warps=roles.warps,
            maxnreg=roles.registers,
            launch_pdl=bool(launch.overlap),
        )
        if parts is not None:
            combine(parts, call.attn_sink, out, lse, overlap=True)
    return out, lse
