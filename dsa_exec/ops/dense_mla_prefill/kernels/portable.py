"""Attention over windows in plain Triton: pairs of a query and a head are the rows of both products, keys the columns.

A program owns some pairs, which may be of several queries, and a block of value channels. It goes over the keys from
the least start to the greatest end of its queries a tile at a time, and uses a tile twice, for the scores and as
values; channels that are no values of its block (the RoPE part, and other blocks' values where there are several) go
into the scores only. Tiles that all of its queries see whole are taken as they are; of the others, before and after,
what a query does not see is masked, and what is not finite is never multiplied by a weight of 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.attention import LOG2_E, finish_softmax, softmax_step
from dsa_exec.core.triton_support import is_interpreted
from dsa_exec.ops.dense_mla_prefill import Call
from dsa_exec.ops.dense_mla_prefill.launch import PortableLaunch


@triton.jit
def _load(pointers, mask, UPCAST: tl.constexpr):
    """Numbers, zero where masked. Triton's interpreter multiplies bfloat16 wrongly: there they become f32."""
    values = tl.load(pointers, mask=mask, other=0.0)
    return values.to(tl.float32) if UPCAST else values


@triton.jit
def _attend_tiles(
    begin,
    end,
    start,
    stop,
    top,
    total,
    summed,
    q,
    q_value,
    q_rest,
    kv,
    kv_row_stride,
    exists,
    first,
    width,
    scale,
    D: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    REST: tl.constexpr,
    REST_CHUNKS: tl.constexpr,
    WHOLE: tl.constexpr,
    UPCAST: tl.constexpr,
    STAGES: tl.constexpr,
):
    """Take keys [begin, end) into the running softmax and the sums. `WHOLE`: whole tiles that all queries see."""
    value = tl.arange(0, VALUES)
    rest = tl.arange(0, REST)
    is_value = value < width
    for offset in tl.range(begin, end, KEYS, num_stages=STAGES):
        key = offset + tl.arange(0, KEYS)
        is_key = key < end
        keys = kv + (key.to(tl.int64) * kv_row_stride)[:, None]
        tile = _load(keys + (first + value)[None, :], is_key[:, None] & is_value[None, :], UPCAST)
        scores = tl.dot(q_value, tl.trans(tile), input_precision="ieee")
        for chunk in tl.static_range(REST_CHUNKS):
            # The channels that are no values of this block, counted without the block.
            channel = chunk * REST + rest
            channel += tl.where(channel >= first, width, 0)
            if REST_CHUNKS > 1:
                q_rest = _load(q + channel[None, :], exists[:, None] & (channel < D)[None, :], UPCAST)
            more = _load(keys + channel[None, :], is_key[:, None] & (channel < D)[None, :], UPCAST)
            scores = tl.dot(q_rest, tl.trans(more), scores, input_precision="ieee")
        scores *= scale
        if not WHOLE:
            is_seen = (key[None, :] >= start[:, None]) & (key[None, :] < stop[:, None])
            scores = tl.where(is_seen, scores, float("-inf"))
            # Who sees such a key has NaN for a score; the others must not get 0 * NaN.
            tile = tl.where(tl.abs(tile.to(tl.float32)) < float("inf"), tile, 0.0)
        weights, decay, top, total = softmax_step(scores, is_key, top, total)
        summed = tl.dot(weights.to(tile.dtype), tile, summed * decay[:, None], input_precision="ieee")
    return top, total, summed


@triton.jit(do_not_specialize=["pairs", "key_count"])
def _attend(
    q,
    kv,
    starts,
    ends,
    sink,
    out,
    lse,
    scale,
    pairs,
    key_count,
    heads,
    q_row_stride,
    q_head_stride,
    kv_row_stride,
    D: tl.constexpr,
    D_V: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
    REST: tl.constexpr,
    HAS_SINK: tl.constexpr,
    UPCAST: tl.constexpr,
    STAGES: tl.constexpr,
):
    value_blocks: tl.constexpr = (D_V + VALUES - 1) // VALUES
    rest_chunks: tl.constexpr = (D - (D_V - (value_blocks - 1) * VALUES) + REST - 1) // REST
    # The last pairs first: in a causal prefill they see most.
    block = (tl.num_programs(0) - 1 - tl.program_id(0)) // value_blocks
    first = tl.program_id(0) % value_blocks * VALUES
    width = tl.minimum(D_V - first, VALUES)
    pair = block * QUERIES + tl.arange(0, QUERIES)
    exists = pair < pairs
    row = pair // heads
    head = pair % heads

    start = tl.maximum(tl.load(starts + row, mask=exists, other=0), 0)
    stop = tl.minimum(tl.load(ends + row, mask=exists, other=0), key_count)
    sees = start < stop
    low = tl.min(tl.where(sees, start, key_count), axis=0)
    high = tl.max(tl.where(sees, stop, 0), axis=0)
    # Tiles that all see whole: from `whole`, `whole_tiles` of them. None: all are taken for tiles after them.
    last_start = tl.max(tl.where(sees, start, 0), axis=0)
    whole = low + tl.cdiv(tl.maximum(last_start - low, 0), KEYS) * KEYS
    whole_tiles = tl.maximum(tl.min(tl.where(sees, stop, key_count), axis=0) - whole, 0) // KEYS
    whole = tl.where(whole_tiles > 0, whole, low)

    q += (row.to(tl.int64) * q_row_stride + head.to(tl.int64) * q_head_stride)[:, None]
    value = tl.arange(0, VALUES)
    is_value = value < width
    q_value = _load(q + (first + value)[None, :], exists[:, None] & is_value[None, :], UPCAST)
    rest = tl.arange(0, REST)
    channel = rest + tl.where(rest >= first, width, 0)
    q_rest = _load(q + channel[None, :], exists[:, None] & (channel < D)[None, :], UPCAST)

    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    summed = tl.zeros((QUERIES, VALUES), tl.float32)
    for part in tl.static_range(3):
        if part == 0:
            begin, end = low, whole
        elif part == 1:
            begin, end = whole, whole + whole_tiles * KEYS
        else:
            begin, end = whole + whole_tiles * KEYS, high
        top, total, summed = _attend_tiles(
            begin, end, start, stop, top, total, summed, q, q_value, q_rest, kv, kv_row_stride, exists, first, width,
            scale, D, KEYS, VALUES, REST, rest_chunks, part == 1, UPCAST, STAGES,
        )  # fmt: skip

    if HAS_SINK:
        sinks = tl.load(sink + head, mask=exists, other=float("-inf"))
    else:
        sinks = tl.full((QUERIES,), float("-inf"), tl.float32)
    factor, pair_lse = finish_softmax(top, total, sinks)
    # Queries that see nothing were in whole tiles of the others all the same.
    attended = tl.where(sees[:, None], summed * factor[:, None], 0.0)
    out += (pair.to(tl.int64) * D_V)[:, None] + (first + value)[None, :]
    tl.store(out, attended.to(out.dtype.element_ty), mask=exists[:, None] & is_value[None, :])
    tl.store(lse + pair, tl.where(sees, pair_lse, float("-inf")), mask=pair < tl.where(first == 0, pairs, 0))


def attend(call: Call, launch: PortableLaunch) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the kernel.

    Returns:
        out [t, h, d_v] in q's dtype and lse f32 [t, h], as the public function describes them.
    """
    rows, heads, d = call.q.shape
    key_count, pairs = call.kv.shape[0], rows * heads
    upcast = is_interpreted() and call.q.dtype != torch.float32
    # Interpreted, a cast to bfloat16 truncates: torch rounds the result.
    out = call.q.new_empty(rows, heads, call.d_v, dtype=torch.float32 if upcast else None)
    lse = call.q.new_empty(rows, heads, dtype=torch.float32)
    if pairs == 0:
        return out.to(call.q.dtype), lse
    if key_count == 0:
        return out.zero_().to(call.q.dtype), lse.fill_(-torch.inf)
    programs = triton.cdiv(pairs, launch.queries) * triton.cdiv(call.d_v, launch.values)
    with torch.cuda.device_of(call.q):
        _attend[(programs,)](
            call.q,
            call.kv,
            call.starts,
            call.ends,
            call.attn_sink,
            out,
            lse,
            call.sm_scale * LOG2_E.value,
            pairs,
            key_count,
            heads,
            call.q.stride(0),
            call.q.stride(1),
            call.kv.stride(0),
            D=d,
            D_V=call.d_v,
            QUERIES=launch.queries,
            KEYS=launch.keys,
            VALUES=launch.values,
            REST=launch.rest,
            HAS_SINK=call.attn_sink is not None,
            UPCAST=upcast,
            STAGES=launch.stages,
            num_warps=launch.warps,
        )
    return out.to(call.q.dtype), lse
