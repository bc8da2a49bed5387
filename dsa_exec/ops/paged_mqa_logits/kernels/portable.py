"""Indexer scores of cached keys in plain Triton: every layout of the cache, every number of rows and heads.

A program owns some query rows of a request, most often all, and a span of its positions. Keys are the rows of a matrix
product and (query row, head) its columns, so that these rows share one read of the keys. The page table is read key by
key, which takes pages of any size; addresses are in int64, since page * page_bytes passes 2**31 beyond 254,200 pages.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.operands import operand
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import TILE
from dsa_exec.ops.paged_mqa_logits import Call
from dsa_exec.ops.paged_mqa_logits.launch import PortableLaunch


@triton.jit
def _queries(q, row, head, channel, row_stride, head_stride, next_n, heads, HEAD_DIM: tl.constexpr, AS: tl.constexpr):
    """A tile of queries, (row, head) by channel."""
    place = q + (row.to(tl.int64) * row_stride + head * head_stride)[:, None] + channel[None, :]
    inside = ((row < next_n) & (head < heads))[:, None] & (channel < HEAD_DIM)[None, :]
    return operand(tl.load(place, mask=inside, other=0.0), AS)


@triton.jit
def _keys(keys, place, known, channel, HEAD_DIM: tl.constexpr, TILED: tl.constexpr, AS: tl.constexpr):
    """A tile of keys, key by channel; zeros where there is no key."""
    # TILED is the side of a tile of preshuffled keys, 0 for plain ones.
    offset = channel if TILED == 0 else channel // TILED * (TILED * TILED) + channel % TILED
    inside = known[:, None] & (channel < HEAD_DIM)[None, :]
    return operand(tl.load(keys + place[:, None] + offset[None, :], mask=inside, other=0.0), AS)


@triton.jit(
    do_not_specialize=[
        "next_n",
        "table_width",
        "cache_pages",
        "width",
        "spans",
        "blocks",
        "lens_stride",
        "table_stride",
    ]
)
def logits_kernel(
    q,
    keys,
    scales,
    head_weights,
    context_lens,
    page_table,
    out,
    next_n,
    table_width,
    cache_pages,
    width,
    groups,
    spans,
    blocks,
    q_request_stride,
    q_row_stride,
    q_head_stride,
    weight_stride,
    lens_stride,
    table_stride,
    out_stride,
    PAGE: tl.constexpr,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TILED: tl.constexpr,
    SCALED: tl.constexpr,
    CLEAN: tl.constexpr,
    AS: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """Logits of a group of rows of a request, for a span of its positions."""
    COLUMNS: tl.constexpr = BLOCK_ROWS * BLOCK_HEADS
    ONE_PASS: tl.constexpr = HEAD_DIM <= BLOCK_CHANNELS  # a key is one operand
    KEPT: tl.constexpr = ONE_PASS and HEADS <= BLOCK_HEADS  # the queries are one operand, and stay
    PAGE_ELEMENTS: tl.constexpr = PAGE * HEAD_DIM + (4 * PAGE if SCALED else 0)
    group = tl.program_id(0) % groups  # programs that read the same keys run at the same time
    span = tl.program_id(0) // groups % spans
    request = (tl.program_id(0) // groups // spans).to(tl.int64)
    first = span * (KEYS * blocks)
    last = tl.minimum(first + KEYS * blocks, width)
    lens = context_lens + request * lens_stride
    table = page_table + request * table_stride
    q += request * q_request_stride

    block_row = group * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    seen = tl.load(lens + block_row, mask=block_row < next_n, other=0)
    stop = tl.maximum(tl.minimum(tl.max(seen, axis=0), last), first)
    out_row = out + ((request * next_n + block_row) * out_stride)[None, :]
    is_row = (block_row < next_n)[None, :]

    key = tl.arange(0, KEYS)
    channel = tl.arange(0, BLOCK_CHANNELS)
    row = group * BLOCK_ROWS + tl.arange(0, COLUMNS) // BLOCK_HEADS
    column_head = tl.arange(0, COLUMNS) % BLOCK_HEADS
    weight_row = head_weights + (request * next_n + row) * weight_stride
    if KEPT:
        queries = _queries(q, row, column_head, channel, q_row_stride, q_head_stride, next_n, HEADS, HEAD_DIM, AS)
        weight = tl.load(weight_row + column_head, mask=(row < next_n) & (column_head < HEADS), other=0)
    for start in range(first, stop, KEYS):
        position = start + key
        page_column = position // PAGE
        token = position % PAGE
        page = tl.load(table + page_column, mask=(position < stop) & (page_column < table_width), other=-1)
        known = (page >= 0) & (page < cache_pages)
        page = tl.where(known, page, 0).to(tl.int64)
        if TILED == 0:
            place = page * PAGE_ELEMENTS + token * HEAD_DIM
        else:
            place = page * PAGE_ELEMENTS + token // TILED * (TILED * HEAD_DIM) + token % TILED * TILED
        if ONE_PASS:
            tile = _keys(keys, place, known, channel, HEAD_DIM, TILED, AS)
        if SCALED:  # counted in f32
            scale_place = page * (PAGE_ELEMENTS // 4) + PAGE * HEAD_DIM // 4 + token
            scale = tl.load(scales + scale_place, mask=known, other=0)
        scores = tl.zeros([KEYS, BLOCK_ROWS], tl.float32)
        for h in tl.static_range(0, HEADS, BLOCK_HEADS):
            products = tl.zeros([KEYS, COLUMNS], tl.float32)
            head = h + column_head
            for c in tl.static_range(0, HEAD_DIM, BLOCK_CHANNELS):
                part = c + channel
                if not ONE_PASS:
                    tile = _keys(keys, place, known, part, HEAD_DIM, TILED, AS)
                if not KEPT:
                    queries = _queries(q, row, head, part, q_row_stride, q_head_stride, next_n, HEADS, HEAD_DIM, AS)
                products = tl.dot(tile, tl.trans(queries), products, input_precision="ieee")
            if not KEPT:
                weight = tl.load(weight_row + head, mask=(row < next_n) & (head < HEADS), other=0)
            parts = tl.maximum(products, 0.0, propagate_nan=tl.PropagateNan.ALL) * weight[None, :]
            scores += tl.sum(tl.reshape(parts, [KEYS, BLOCK_ROWS, BLOCK_HEADS]), axis=2)
        if SCALED:
            scores = scores * scale[:, None]
        visible = position[:, None] < tl.minimum(seen, stop)[None, :]
        scores = tl.where(known[:, None], scores, float("-inf"))
        if CLEAN:
            scores = tl.where(visible, scores, float("-inf"))
            tl.store(out_row + position[:, None], scores, mask=is_row & (position < last)[:, None])
        else:
            tl.store(out_row + position[:, None], scores, mask=is_row & visible)
    if CLEAN:
        nothing = tl.full([KEYS, BLOCK_ROWS], float("-inf"), tl.float32)
        for start in range(first + tl.cdiv(stop - first, KEYS) * KEYS, last, KEYS):
            position = start + key
            tl.store(out_row + position[:, None], nothing, mask=is_row & (position < last)[:, None])


def write_logits(call: Call, out: torch.Tensor, launch: PortableLaunch, arithmetic: str) -> None:
    """Launch the kernel for a call that has requests, rows, heads, channels and columns."""
    layout, data = call.cache.layout, call.cache.data
    requests, next_n, heads, _ = call.q.shape
    quantised = layout.format == "fp8"
    stored = (E4M3 if arithmetic == "same" else torch.uint8) if quantised else None
    groups = triton.cdiv(next_n, launch.rows)
    spans = triton.cdiv(call.max_context_len, launch.keys * launch.blocks)
    with torch.cuda.device_of(data):
        logits_kernel[(requests * spans * groups,)](
            call.q.view(stored) if stored else call.q,
            data.view(stored) if stored else data,
            data.view(torch.float32) if quantised else data,
            call.head_weights,
            call.context_lens,
            call.page_table,
            out,
            next_n,
            call.page_table.shape[1],
            data.shape[0],
            call.max_context_len,
            groups,
            spans,
            launch.blocks,
            call.q.stride(0),
            call.q.stride(1),
            call.q.stride(2),
            call.head_weights.stride(0),
            call.context_lens.stride(0),
            call.page_table.stride(0),
            out.stride(0),
            PAGE=layout.page_tokens,
            HEADS=heads,
            HEAD_DIM=layout.head_dim,
            TILED=TILE if layout.order == "preshuffled" else 0,
            SCALED=quantised,
            CLEAN=call.clean,
            AS=arithmetic,
            KEYS=launch.keys,
            BLOCK_ROWS=launch.rows,
            BLOCK_HEADS=launch.heads,
            BLOCK_CHANNELS=launch.channels,
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
