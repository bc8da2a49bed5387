"""Score cached keys and select the best of them, in plain Triton, without logits in memory: see `gathered.py`.

A group is some query rows of one request, most often all, so that they share one read of its keys. The page table is
read key by key, which takes pages of any size; addresses are in int64.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dsa_exec.core.kernels.indexer_scores import load_part, tile_scores
from dsa_exec.core.kernels.order import ordered_keys
from dsa_exec.ops.index_select.kernels.candidates import keep_best_of_rows, offer, write_picks


@triton.jit
def key_places(table, position, seen, table_width, cache_pages, PAGE, PAGE_ELEMENTS, CHANNELS, TILED: tl.constexpr):
    """Where keys and their scales begin in the cache, in elements of each, and which of them there are."""
    page_column = position // PAGE
    token = position % PAGE
    page = tl.load(table + page_column, mask=seen & (page_column < table_width), other=-1)
    known = (page >= 0) & (page < cache_pages)
    page = tl.where(known, page, 0).to(tl.int64)
    if TILED == 0:
        place = page * PAGE_ELEMENTS + token * CHANNELS
    else:
        place = page * PAGE_ELEMENTS + token // TILED * (TILED * CHANNELS) + token % TILED * TILED
    return place, page * (PAGE_ELEMENTS // 4) + PAGE * CHANNELS // 4 + token, known


@triton.jit(
    do_not_specialize=["requests", "next_n", "k", "groups", "spans", "span_keys", "width", "table_width", "cache_pages"]
)
def select_paged(
    q,
    keys,
    scales,
    head_weights,
    context_lens,
    page_table,
    candidates,
    counts,
    picked,
    requests,
    next_n,
    k,
    groups,
    spans,
    span_keys,
    width,
    table_width,
    cache_pages,
    slot_count,
    q_request_stride,
    q_row_stride,
    q_head_stride,
    weight_stride,
    lens_stride,
    table_stride,
    PAGE: tl.constexpr,
    HEADS: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    PART: tl.constexpr,
    TILE: tl.constexpr,
    TILED: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    SCALED: tl.constexpr,
    TO_SLOTS: tl.constexpr,
    AS: tl.constexpr,
):
    """Select for groups of ROWS rows; or, with several spans, find the candidates of one group in one of them."""
    PARTS: tl.constexpr = (CHANNELS + PART - 1) // PART
    PAGE_ELEMENTS: tl.constexpr = PAGE * CHANNELS + (4 * PAGE if SCALED else 0)
    candidates += tl.program_id(0).to(tl.int64) * (ROWS * CAPACITY)
    rows = tl.arange(0, ROWS)
    column = tl.arange(0, ROWS * PADDED_HEADS)
    head = column % PADDED_HEADS
    for item in tl.range(tl.program_id(0), groups * spans, tl.num_programs(0)):
        group = item % groups
        parts = groups // requests
        request = (group // parts).to(tl.int64)
        first_row = group % parts * ROWS
        begin = item // groups * span_keys
        table = page_table + request * table_stride
        row = first_row + rows
        length = tl.load(context_lens + request * lens_stride + row, mask=row < next_n, other=0)
        length = tl.maximum(tl.minimum(length, width), 0)
        count = tl.zeros([ROWS], tl.int32)
        threshold = tl.zeros([ROWS], tl.uint32)
        if tl.max(length, 0) > k:
            column_row = first_row + column // PADDED_HEADS
            real = (column_row < next_n) & (head < HEADS)
            column_row = column_row.to(tl.int64)
            weight_rows = head_weights + (request * next_n + column_row) * weight_stride
            weights = tl.load(weight_rows + head, mask=real, other=0.0)
            vectors = q + request * q_request_stride + column_row * q_row_stride + head.to(tl.int64) * q_head_stride
            queries = load_part(vectors, real, 0, CHANNELS, PART, 0, AS) if PARTS == 1 else real
            to_key = tl.minimum(tl.where(length > k, length, 0), begin + span_keys)  # others select all that they see
            for offset in tl.range(begin, tl.max(to_key, 0), TILE, num_stages=STAGES if PARTS == 1 else 1):
                key = offset + tl.arange(0, TILE)
                in_span = key < tl.max(to_key, 0)
                place, scale_place, known = key_places(
                    table, key, in_span, table_width, cache_pages, PAGE, PAGE_ELEMENTS, CHANNELS, TILED
                )
                scores = tile_scores(
                    keys + place, known, queries, vectors, real, weights, head, HEADS, PADDED_HEADS, CHANNELS, ROWS,
                    PART, TILE, TILED, STAGES, AS,
                )  # fmt: skip
                if SCALED:
                    scores *= tl.load(scales + scale_place, mask=known, other=0.0)[:, None]
                scores = tl.where(known[:, None], scores, float("-inf"))
                offered = tl.where(key[:, None] < to_key[None, :], ordered_keys(scores), 0)
                count = offer(candidates, count, threshold, offered, key, CAPACITY)
                if tl.max(count, 0) > CAPACITY - TILE:
                    count, threshold = keep_best_of_rows(candidates, count, threshold, k, CAPACITY)
            count, threshold = keep_best_of_rows(candidates, count, threshold, k, CAPACITY)
        if spans > 1:
            tl.store(counts + item * ROWS + rows, count)
        else:
            for this in tl.range(0, ROWS):
                if first_row + this < next_n:
                    write_picks(
                        candidates + this * CAPACITY,
                        picked + (request * next_n + first_row + this) * k,
                        0,
                        tl.sum(tl.where(rows == this, length, 0), 0),
                        0, k, table, table_width, PAGE, slot_count, TO_SLOTS, BLOCK,
                    )  # fmt: skip
            tl.debug_barrier()  # before the memory is used for other rows
