"""Score gathered keys and select the best of them in one kernel on Hopper: the logits are never in memory.

A program owns 256 columns of (query row, head) and goes over the keys that its rows see (`core/kernels/
hopper_indexer.py`). Scores of a span of keys stay in shared memory. Then a warp for each row, or two, appends those
that are above the row's threshold to its candidates, in the order of their positions. When another span may not fit,
the k best are kept, or a few more, and the least of them is the new threshold: positions rise, so that of equal scores
the earlier one wins, and a strict comparison is right. What is left at the end are the k best, and they are ascending.

Programs take groups of rows from a counter, those first that see most in a causal prefill. Which program has which
rows changes nothing: each has candidates of its own. Rows that see no more than k keys select all of them, and are not
scored.
"""

from __future__ import annotations

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from dsa_exec.core.kernels.hopper_indexer import (
    ACCUMULATOR,
    CHANNELS,
    COLUMNS,
    SLOT,
    TILE,
    TILES,
    advance,
    barrier,
    copy_to_shared,
    load_weights,
    refill,
    score_layout,
)
from dsa_exec.ops.index_select import Call, GatheredKeys
from dsa_exec.ops.index_select.hopper_launch import HopperLaunch
from dsa_exec.ops.index_select.kernels import hopper_ptx
from dsa_exec.ops.index_select.kernels.hopper_candidates import CELLS, LANES, keep_best, of_rows, ptx

KEEP_SCORE = gl.constexpr(hopper_ptx.KEEP_SCORE)
IS_ANY_FULL = gl.constexpr(hopper_ptx.IS_ANY_FULL)
PAD = gl.constexpr(hopper_ptx.PAD)
UNROLL = gl.constexpr(2)  # slots of the ring in one body of the loop
SPAN = gl.constexpr(256)  # keys of them


@gluon.jit
def _to_span(target, keys, scores):
    ptx(KEEP_SCORE, "=r,r,f", [target[None, :] + (keys * 4)[:, None], scores])


@gluon.jit
def _offer(counts, span, number: gl.constexpr):
    """Append what is above the threshold of a line of the span before; the state is how many candidates there are."""
    if number <= SPAN // 128:
        read_at, thresholds, first, offered, memory, position, place_bytes = span
        OFFER: gl.constexpr = hopper_ptx.offer(number - 1)
        inputs = [read_at, thresholds, first, offered, counts, memory, position, place_bytes]
        counts = ptx(OFFER, "=r,r,f,r,r,r,l,r,l", inputs)
    return counts


@gluon.jit
def _span(read_at, written, thresholds, before, from_key, offered, memory, place_bytes):
    """What `_offer` needs of the span before.

    Args:
        read_at: where this lane's scores lie in the second of two places for a span.
        written: where the next span begins: at the first place or the second.
        thresholds: of each row, for each lane.
        before: the span's first key.
        from_key: the first key that is offered, of each row.
        offered: how many are from there on.
        memory: address of each row's candidates.
        place_bytes: from their scores to their positions.
    """
    ROWS: gl.constexpr = thresholds.shape[0]
    lane = gl.arange(0, 32, layout=gl.SliceLayout(0, LANES))[None, :] * 4
    first = of_rows(before - from_key, ROWS) + lane
    position = of_rows(from_key * 0 + before, ROWS) + lane
    return read_at - written, thresholds, first, of_rows(offered, ROWS), memory, position, place_bytes


@gluon.jit
def _select_all(picked, row, t, length, offset, k):
    """All positions of rows that see no more than k, from `offset` on; -1 behind them."""
    cell = gl.arange(0, 512, layout=gl.SliceLayout(0, CELLS))
    row, length, offset = (
        gl.convert_layout(row, gl.SliceLayout(1, CELLS)),
        gl.convert_layout(length, gl.SliceLayout(1, CELLS)),
        gl.convert_layout(offset, gl.SliceLayout(1, CELLS)),
    )
    place = picked + (row.to(gl.int64) * k)[:, None]
    for at in range(0, k, 512):
        nth = (at + cell)[None, :]
        wanted = (nth < k) & ((row < t) & (length <= k))[:, None]
        gl.store(place + nth, gl.where(nth < length[:, None], nth + offset[:, None], -1), mask=wanted)


@gluon.jit(do_not_specialize=["t", "s", "k", "groups"])
def select_kernel(
    q_tiles,
    key_tiles,
    scales,
    head_weights,
    starts,
    ends,
    candidates,
    next_group,
    picked,
    t,
    s,
    k,
    groups,
    weight_stride,
    HEADS: gl.constexpr,
    PLACES: gl.constexpr,
    CAPACITY: gl.constexpr,
):
    """Select for groups of 256 / HEADS rows, by a ring of PLACES slots, with CAPACITY candidates of a row."""
    HALF: gl.constexpr = COLUMNS // HEADS  # query rows of a product
    ROWS: gl.constexpr = 2 * HALF
    ROW: gl.constexpr = gl.SliceLayout(1, LANES)
    ROW_BYTES: gl.constexpr = (SPAN + PAD) * 4
    DECLARE: gl.constexpr = hopper_ptx.declare(ROWS, SPAN)

    ptx(DECLARE, "=r", [])
    queries = gl.allocate_shared_memory(gl.float8e4nv, [2 * COLUMNS, CHANNELS], q_tiles.layout)
    ring = gl.allocate_shared_memory(gl.float8e4nv, [PLACES, SLOT, CHANNELS], key_tiles.layout)
    full = gl.allocate_shared_memory(gl.int64, [PLACES, 1], mbarrier.MBarrierLayout())
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    for place in gl.static_range(PLACES):
        mbarrier.init(full.index(place), count=1)
    mbarrier.init(q_full, count=1)
    fence_async_shared()
    q_halves = queries.slice(0, COLUMNS).permute((1, 0)), queries.slice(COLUMNS, COLUMNS).permute((1, 0))

    memory = candidates + gl.program_id(0).to(gl.int64) * (ROWS * 2 * CAPACITY)
    rows = gl.arange(0, ROWS, layout=ROW)
    lane = gl.arange(0, 32, layout=gl.SliceLayout(0, LANES))[None, :]
    row_memory = of_rows((memory + rows.to(gl.int64) * (2 * CAPACITY)).to(gl.int64), ROWS)
    place_bytes = gl.full([ROWS, 32], 4 * CAPACITY, gl.int64, LANES)  # from a row's scores to its positions
    query = gl.arange(0, HALF, layout=gl.SliceLayout(0, score_layout(HEADS)))
    slot = 0  # of the ring, counted from the start
    scored = 0  # groups
    group = gl.program_id(0)
    while group < groups:
        first_row = (groups - 1 - group) * ROWS
        row = first_row + rows
        start = gl.load(starts + row, mask=row < t, other=0)
        end = gl.load(ends + row, mask=row < t, other=0)
        low = gl.minimum(gl.maximum(start, 0), s)
        # As `topk` does, whose lengths are int32: a window of more keys than that is empty.
        high = gl.where(end - start < 0, low, gl.maximum(gl.minimum(end, s), low))
        length = high - low
        if gl.min(length, axis=0) <= k:
            _select_all(picked, row, t, length, low - start, k)
        high = gl.where(length > k, high, 0)
        longest = gl.max(high, axis=0)
        if longest > 0:
            barrier()  # all have done with the queries before
            mbarrier.expect(q_full, 2 * COLUMNS * CHANNELS)
            copy_to_shared(q_tiles, [first_row * HEADS, 0], q_full, queries)
            weights = load_weights(head_weights, first_row, t, weight_stride, HEADS)
            counts = gl.zeros([ROWS, 32], gl.int32, LANES)
            thresholds = gl.full([ROWS, 32], float("nan"), gl.float32, LANES)
            zero = gl.zeros([TILE, COLUMNS], gl.float32, ACCUMULATOR)
            done = zero, zero
            # Of the span before: where it is, its first key, and what of it is offered. Before the first, nothing.
            read_at = of_rows((rows + ROWS) * ROW_BYTES, ROWS) + lane * 16
            before = first_row * 0
            from_key = low
            offered = low * 0
            to = (picked + row.to(gl.int64) * k).to(gl.int64)
            mbarrier.wait(q_full, scored & 1)
            scored += 1
            floor = first_row * 0  # keys below have been offered
            # Each round takes the windows that cover the next tile that is seen at all, to the end of the longest.
            while longest > floor:
                key = gl.min(gl.where(high > floor, gl.maximum(low, floor), s), axis=0) // SLOT * SLOT
                last = gl.max(gl.where(low < key + SLOT, high, 0), axis=0)
                stop = key + (last - key + SPAN - 1) // SPAN * SPAN
                from_next = gl.maximum(low, floor)
                offered_next = gl.maximum(gl.minimum(high, last) - from_next, 0)
                for ahead in gl.static_range(PLACES):
                    coming = key + ahead * SLOT
                    refill(key_tiles, ring, full, slot + ahead, coming, coming < stop)
                while key < stop:
                    # A barrier: the span before is there, and all have read the one before it.
                    if ptx(IS_ANY_FULL, "=r,r", [CAPACITY - SPAN]) != 0:
                        counts, thresholds = keep_best(
                            memory, row_memory, counts, thresholds, to, start, k, False, ROWS, CAPACITY
                        )
                        # Not kept in registers meanwhile, where all of a row's candidates are.
                        weights = load_weights(head_weights, first_row, t, weight_stride, HEADS)
                        zero = gl.zeros([TILE, COLUMNS], gl.float32, ACCUMULATOR)
                        done = zero, zero
                    written = (slot // UNROLL & 1) * (ROWS * ROW_BYTES)
                    span = _span(read_at, written, thresholds, before, from_key, offered, row_memory, place_bytes)
                    written -= key * 4
                    targets = query * ROW_BYTES + written, (query + HALF) * ROW_BYTES + written
                    done, counts = advance(
                        key_tiles, ring, full, slot, key, stop, q_halves, weights, targets, scales, s, done, HEADS,
                        UNROLL, _to_span, counts, span, _offer,
                    )  # fmt: skip
                    before = key
                    from_key = from_next
                    offered = offered_next
                    slot += UNROLL
                    key += SPAN
                floor = last
            if ptx(IS_ANY_FULL, "=r,r", [CAPACITY - SPAN]) != 0:
                counts, thresholds = keep_best(
                    memory, row_memory, counts, thresholds, to, start, k, False, ROWS, CAPACITY
                )
            written = (slot // UNROLL & 1) * (ROWS * ROW_BYTES)
            span = _span(read_at, written, thresholds, before, from_key, offered, row_memory, place_bytes)
            for number in gl.static_range(1, SPAN // 128 + 1):
                counts = _offer(counts, span, number)
            keep_best(memory, row_memory, counts, thresholds, to, start, k, True, ROWS, CAPACITY)
            ptx(IS_ANY_FULL, "=r,r", [0])  # the next rows have no candidates yet
        group = gl.num_programs(0) + gl.atomic_add(next_group, 1)


def select_of_gathered(call: Call, keys: GatheredKeys, launch: HopperLaunch) -> torch.Tensor:
    """What rows select, int32 [t, k]; there are rows and keys."""
    t, heads, channels = call.q.shape
    s = keys.keys.shape[0]
    groups = launch.groups(t, heads)
    programs = launch.programs_for(groups)
    # The counter of groups lies behind the candidates: with one of its own a call of 4096 rows would exceed 64 MiB.
    memory = call.q.new_empty(launch.candidate_bytes(programs, heads) // 4 + 1, dtype=torch.float32)
    picked = call.q.new_empty(t, call.k, dtype=torch.int32)
    select_kernel[(programs,)](
        TensorDescriptor.from_tensor(call.q.view(t * heads, channels), [256, channels], TILES),
        TensorDescriptor.from_tensor(keys.keys, [128, channels], TILES),
        keys.scales,
        call.head_weights,
        keys.starts,
        keys.ends,
        memory,
        memory[-1:].view(torch.int32).zero_(),
        picked,
        t,
        s,
        call.k,
        groups,
        call.head_weights.stride(0),
        HEADS=heads,
        PLACES=launch.stages,
        CAPACITY=launch.capacity,
        num_warps=4,
        enable_fp_fusion=True,
    )
    return picked
