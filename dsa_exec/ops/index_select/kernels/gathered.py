"""Score gathered keys and select the best of them, in plain Triton, without logits in memory.

A program takes some query rows at a time and goes over the keys that they see, tile by tile; what may be among the k
best of a row is kept (`candidates.py`). Rows that see no more than k keys select all of them, and are not scored.

Where there are too few rows to keep a device busy, the keys are divided into spans: each program takes one span, and
`merge.py` joins what was found. Each program has its own memory for candidates, so that all of it has a fixed size.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dsa_exec.core.kernels.indexer_scores import load_part, tile_scores
from dsa_exec.core.kernels.order import ordered_keys
from dsa_exec.ops.index_select.kernels.candidates import keep_best_of_rows, offer, write_picks


@triton.jit
def window(starts, ends, row, t, s):
    """What rows see: the first key, one past the last, how many; and the start as it is given."""
    start = tl.load(starts + row, mask=row < t, other=0)
    end = tl.load(ends + row, mask=row < t, other=0)
    low = tl.minimum(tl.maximum(start, 0), s)
    # As `topk` does, whose lengths are int32: a window of more keys than that is empty.
    high = tl.where(end - start < 0, low, tl.maximum(tl.minimum(end, s), low))
    return low, high, high - low, start


@triton.jit(do_not_specialize=["t", "s", "k", "groups", "spans", "span_keys"])
def select_gathered(
    q,
    keys,
    scales,
    head_weights,
    starts,
    ends,
    candidates,
    counts,
    picked,
    t,
    s,
    k,
    groups,
    spans,
    span_keys,
    q_row_stride,
    q_head_stride,
    key_stride,
    weight_stride,
    HEADS: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    PART: tl.constexpr,
    TILE: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
    SCALED: tl.constexpr,
    AS: tl.constexpr,
):
    """Select for groups of ROWS rows; or, with several spans, find the candidates of one group in one of them."""
    PARTS: tl.constexpr = (CHANNELS + PART - 1) // PART
    candidates += tl.program_id(0).to(tl.int64) * (ROWS * CAPACITY)
    rows = tl.arange(0, ROWS)
    column = tl.arange(0, ROWS * PADDED_HEADS)
    head = column % PADDED_HEADS
    for item in tl.range(tl.program_id(0), groups * spans, tl.num_programs(0)):
        # The last rows first: in a causal prefill they see most.
        first_row = (groups - 1 - item % groups) * ROWS
        begin = item // groups * span_keys
        end = tl.minimum(begin + span_keys, s)
        row = first_row + rows
        low, high, length, start = window(starts, ends, row, t, s)
        count = tl.zeros([ROWS], tl.int32)
        threshold = tl.zeros([ROWS], tl.uint32)
        if tl.max(length, 0) > k:
            column_row = first_row + column // PADDED_HEADS
            real = (column_row < t) & (head < HEADS)
            column_row = column_row.to(tl.int64)
            weights = tl.load(head_weights + column_row * weight_stride + head, mask=real, other=0.0)
            vectors = q + column_row * q_row_stride + head.to(tl.int64) * q_head_stride
            queries = load_part(vectors, real, 0, CHANNELS, PART, 0, AS) if PARTS == 1 else real
            from_key = tl.maximum(low, begin)
            to_key = tl.minimum(high, end)
            to_key = tl.where((from_key < to_key) & (length > k), to_key, begin)  # others have nothing to be found here
            position = begin
            # Each round takes the windows that cover the next key that is seen at all, to the end of the longest.
            while tl.max(to_key, 0) > position:
                first = tl.min(tl.where(to_key > position, tl.maximum(from_key, position), end), 0)
                last = tl.max(tl.where(from_key < first + TILE, to_key, begin), 0)
                for offset in tl.range(first, last, TILE, num_stages=STAGES if PARTS == 1 else 1):
                    key = offset + tl.arange(0, TILE)
                    key_rows = keys + key.to(tl.int64) * key_stride
                    scores = tile_scores(
                        key_rows, key < s, queries, vectors, real, weights, head, HEADS, PADDED_HEADS, CHANNELS, ROWS,
                        PART, TILE, 0, STAGES, AS,
                    )  # fmt: skip
                    if SCALED:
                        scores *= tl.load(scales + key, mask=key < s, other=0.0)[:, None]
                    seen = (key[:, None] >= from_key[None, :]) & (key[:, None] < to_key[None, :])
                    offered = tl.where(seen, ordered_keys(scores), 0)
                    count = offer(candidates, count, threshold, offered, key, CAPACITY)
                    if tl.max(count, 0) > CAPACITY - TILE:
                        count, threshold = keep_best_of_rows(candidates, count, threshold, k, CAPACITY)
                position = first + tl.cdiv(last - first, TILE) * TILE
            count, threshold = keep_best_of_rows(candidates, count, threshold, k, CAPACITY)
        if spans > 1:
            tl.store(counts + item * ROWS + rows, count)
        else:
            for this in tl.range(0, ROWS):
                if first_row + this < t:
                    is_this = rows == this
                    write_picks(
                        candidates + this * CAPACITY,
                        picked + (first_row + this).to(tl.int64) * k,
                        tl.sum(tl.where(is_this, low, 0), 0),
                        tl.sum(tl.where(is_this, length, 0), 0),
                        tl.sum(tl.where(is_this, start, 0), 0),
                        k, picked, 0, 1, 0, False, BLOCK,
                    )  # fmt: skip
            tl.debug_barrier()  # before the memory is used for other rows
