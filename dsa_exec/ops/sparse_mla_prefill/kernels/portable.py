"""Attention over selected rows in plain Triton: heads are the rows of both products, gathered keys the columns.

A program owns one query row, a block of heads and a block of value channels. It gathers the rows that the query names a
tile at a time and uses the tile twice, for the scores and as values; channels that are no values of its block (the
RoPE part, and other blocks' values where there are several) go into the scores only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.attention import LOG2_E, finish_softmax, named_rows, softmax_step
from dsa_exec.core.triton_support import is_interpreted
from dsa_exec.ops.sparse_mla_prefill import Call
from dsa_exec.ops.sparse_mla_prefill.launch import PortableLaunch


@triton.jit
def _load(pointers, mask, UPCAST: tl.constexpr):
    """Numbers, zero where masked. Triton's interpreter multiplies bfloat16 wrongly: there they become f32."""
    values = tl.load(pointers, mask=mask, other=0.0)
    return values.to(tl.float32) if UPCAST else values


@triton.jit
def _attend(
    q,
    kv,
    indices,
    sink,
    out,
    lse,
    scale,
    key_count,
    heads,
    k,
    q_row_stride,
    q_head_stride,
    kv_row_stride,
    index_row_stride,
    D: tl.constexpr,
    D_V: tl.constexpr,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    REST: tl.constexpr,
    HAS_SINK: tl.constexpr,
    UPCAST: tl.constexpr,
    STAGES: tl.constexpr,
):
    value_blocks: tl.constexpr = (D_V + VALUES - 1) // VALUES
    rest_chunks: tl.constexpr = (D - (D_V - (value_blocks - 1) * VALUES) + REST - 1) // REST
    head_blocks = tl.cdiv(heads, HEADS)
    program = tl.program_id(0)
    row = (program // (head_blocks * value_blocks)).to(tl.int64)
    head = program // value_blocks % head_blocks * HEADS + tl.arange(0, HEADS)
    has_head = head < heads
    first = program % value_blocks * VALUES
    width = tl.minimum(D_V - first, VALUES)
    value = tl.arange(0, VALUES)
    is_value = value < width
    rest = tl.arange(0, REST)

    q += row * q_row_stride + head.to(tl.int64)[:, None] * q_head_stride
    indices += row * index_row_stride
    q_value = _load(q + (first + value)[None, :], has_head[:, None] & is_value[None, :], UPCAST)
    if rest_chunks == 1:
        channel = rest + tl.where(rest >= first, width, 0)
        q_rest = _load(q + channel[None, :], has_head[:, None] & (channel < D)[None, :], UPCAST)

    top = tl.full((HEADS,), float("-inf"), tl.float32)
    total = tl.zeros((HEADS,), tl.float32)
    summed = tl.zeros((HEADS, VALUES), tl.float32)
    position = tl.arange(0, KEYS)
    index = tl.load(indices + position, mask=position < k, other=-1)
    for start in tl.range(0, k, KEYS, num_stages=STAGES):
        named, slot = named_rows(index, key_count)
        following = start + KEYS + position
        index = tl.load(indices + following, mask=following < k, other=-1)
        keys = kv + (slot * kv_row_stride)[:, None]
        tile = _load(keys + (first + value)[None, :], named[:, None] & is_value[None, :], UPCAST)
        scores = tl.dot(q_value, tl.trans(tile), input_precision="ieee")
        for chunk in tl.static_range(rest_chunks):
            # The channels that are no values of this block, counted without the block.
            channel = chunk * REST + rest
            channel += tl.where(channel >= first, width, 0)
            if rest_chunks > 1:
                q_rest = _load(q + channel[None, :], has_head[:, None] & (channel < D)[None, :], UPCAST)
            more = _load(keys + channel[None, :], named[:, None] & (channel < D)[None, :], UPCAST)
            scores = tl.dot(q_rest, tl.trans(more), scores, input_precision="ieee")
        weights, decay, top, total = softmax_step(scores * scale, named, top, total)
        summed = tl.dot(weights.to(tile.dtype), tile, summed * decay[:, None], input_precision="ieee")

    if HAS_SINK:
        sinks = tl.load(sink + head, mask=has_head, other=float("-inf"))
    else:
        sinks = tl.full((HEADS,), float("-inf"), tl.float32)
    factor, row_lse = finish_softmax(top, total, sinks)
    place = row * heads + head
    out += (place * D_V)[:, None] + (first + value)[None, :]
    attended = (summed * factor[:, None]).to(out.dtype.element_ty)
    tl.store(out, attended, mask=has_head[:, None] & is_value[None, :])
    tl.store(lse + place, row_lse, mask=head < tl.where(first == 0, heads, 0))


def attend(call: Call, launch: PortableLaunch) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the kernel.

    Returns:
        out [t, h, d_v] in q's dtype and lse f32 [t, h], as the public function describes them.
    """
    rows, heads, d = call.q.shape
    key_count, k = call.kv.shape[0], call.indices.shape[1]
    upcast = is_interpreted() and call.q.dtype != torch.float32
    # Interpreted, a cast to bfloat16 truncates: torch rounds the result.
    out = call.q.new_empty(rows, heads, call.d_v, dtype=torch.float32 if upcast else None)
    lse = call.q.new_empty(rows, heads, dtype=torch.float32)
    blocks = triton.cdiv(heads, launch.heads) * triton.cdiv(call.d_v, launch.values)
    if rows * heads == 0:
        return out.to(call.q.dtype), lse
    if key_count == 0 or k == 0:
        return out.zero_().to(call.q.dtype), lse.fill_(-torch.inf)
    with torch.cuda.device_of(call.q):
        _attend[(rows * blocks,)](
            call.q,
            call.kv,
            call.indices,
            call.attn_sink,
            out,
            lse,
            call.sm_scale * LOG2_E.value,
            key_count,
            heads,
            k,
            call.q.stride(0),
            call.q.stride(1),
            call.kv.stride(0),
            call.indices.stride(0),
            D=d,
            D_V=call.d_v,
            HEADS=launch.heads,
            KEYS=launch.keys,
            VALUES=launch.values,
            REST=launch.rest,
            HAS_SINK=call.attn_sink is not None,
            UPCAST=upcast,
            STAGES=launch.stages,
            num_warps=launch.warps,
        )
    return out.to(call.q.dtype), lse
