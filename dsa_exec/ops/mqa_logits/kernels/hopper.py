"""Indexer scores of e4m3 keys of 128 channels on Hopper's matrix units, logits written as they are made.

A program of four warps owns a few query rows, 256 columns of (row, head), and a chunk of keys; two programs share a
multiprocessor. Keys are the 64 rows of a matrix product and (row, head) its columns, so that the sum over heads stays
within a row of the accumulator. Keys come through a ring that the copy engine fills, 128 to a slot.

Two products are in flight, each for half of the query rows: while the matrix units work on one, the warps bring the
other through relu, weights and the sum. A product must begin and end within one body of the loop: the compiler waits
at every instruction for one that crosses the back edge, so that the body takes more than one slot.

Tiles that no row of the program sees are not computed. `out` is written in whole tiles, cut to its rows and columns;
`clean` puts -inf over the rest at the end, which costs nothing where windows begin and end together.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from dsa_exec.ops.mqa_logits import Call
from dsa_exec.ops.mqa_logits.launch import HopperLaunch

# Newer Tritons renamed both.
copy_to_shared = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier

TILE = gl.constexpr(64)  # keys of a product
SLOT = gl.constexpr(128)  # keys of a slot of the ring
CHANNELS = gl.constexpr(128)
COLUMNS = gl.constexpr(128)  # columns of a product; a program has two
ACCUMULATOR = gl.constexpr(gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 128, 32]))
NAN_STAYS = gl.constexpr(tl.PropagateNan.ALL)


@gluon.constexpr_function
def _layout(heads, registers, lanes, *lane_axes):
    """Of a tensor [64 keys, queries, *lane_axes]: 8 keys by lane, 16 a warp.

    Args:
        heads: heads of a query.
        registers: bases of the first registers; more follow for the queries beyond the second.
        lanes: bases of the two lowest bits of the lane.
        lane_axes: sizes of what a quad of lanes holds in parts.
    """
    rest = [0] * len(lane_axes)
    queries = [[0, 1 << bit, *rest] for bit in range(1, (128 // heads).bit_length() - 1)]
    return gl.DistributedLinearLayout(
        reg_bases=[*registers, *queries],
        lane_bases=[*lanes, [1, 0, *rest], [2, 0, *rest], [4, 0, *rest]],
        warp_bases=[[16, 0, *rest], [32, 0, *rest]],
        block_bases=[],
        shape=[64, 128 // heads, *lane_axes],
    )


@gluon.constexpr_function
def _score_layout(heads):
    return _layout(heads, [], [[8, 0], [0, 1]])


@gluon.constexpr_function
def _half_sums_layout(heads):
    return _layout(heads, [[0, 0, 1]], [[8, 0, 0], [0, 1, 0]], 2)


@gluon.constexpr_function
def _quarter_sums_layout(heads):
    return _layout(heads, [[0, 0, 1, 0], [8, 0, 0, 0]], [[0, 0, 0, 1], [0, 1, 0, 0]], 2, 2)


@gluon.jit
def _scores(accumulator, weights, scales, HEADS: gl.constexpr):
    """scales[key] * sum over heads of weight * relu(product): [64 keys, queries]."""
    QUERIES: gl.constexpr = COLUMNS // HEADS
    SCORES: gl.constexpr = _score_layout(HEADS)
    parts = gl.maximum(accumulator, 0.0, propagate_nan=NAN_STAYS) * weights[None, :]
    # A thread holds the third and the last axis whole: sums there need no other thread.
    parts = gl.permute(gl.reshape(parts, [TILE, QUERIES, HEADS // 8, 4, 2]), (0, 1, 3, 2, 4))
    parts = gl.sum(gl.reshape(parts, [TILE, QUERIES, 2, 2, HEADS // 4]), axis=4)
    # The four lanes of a quad hold parts of the same sums. They trade one half for another twice, and add.
    parts = gl.sum(gl.convert_layout(parts, _quarter_sums_layout(HEADS)), axis=2)
    parts = gl.sum(gl.convert_layout(parts, _half_sums_layout(HEADS)), axis=2)
    sums = gl.convert_layout(parts, SCORES, assert_trivial=True)
    zero = gl.zeros([TILE, QUERIES], gl.float32, SCORES)
    return gl.fma(sums, zero + scales[:, None], zero)  # adding 0.0 makes -0.0 equal to 0.0 at no cost


@gluon.jit
def _write(out, keys, limits, scores):
    gl.store(out[None, :] + keys[:, None], scores, mask=keys[:, None] < limits[None, :])


@gluon.jit
def _refill(key_tiles, ring, full, slot, key, wanted):
    """Have the copy engine bring the keys from `key` on into a slot, if they are wanted."""
    place = slot % ring.shape[0]
    mbarrier.expect(full.index(place), SLOT * CHANNELS, pred=wanted)
    copy_to_shared(key_tiles, [key, 0], full.index(place), ring.index(place), pred=wanted)


@gluon.jit
def _advance(
    key_tiles, ring, full, slot, key, last, queries, weights, out, limits, scales, s, done, HEADS: gl.constexpr,
    SLOTS: gl.constexpr,
):  # fmt: skip
    """Score the keys of SLOTS slots from `slot` on, whose first key is `key`, and refill the slots below key `last`.

    Pairs are for the two halves of the query rows. Returns `done`: the accumulators, for the next body to write over.
    """
    PLACES: gl.constexpr = ring.shape[0]
    TILES: gl.constexpr = 2 * SLOTS
    never = s < 0  # the compiler cannot know; believing that the old sums are wanted, it keeps to two sets of registers
    for ahead in gl.static_range(SLOTS):
        mbarrier.wait(full.index((slot + ahead) % PLACES), (slot + ahead) // PLACES & 1)
    tile_keys = key + gl.arange(0, TILE, layout=gl.SliceLayout(1, _score_layout(HEADS)))
    tile_scales = gl.load(scales + tile_keys, mask=tile_keys < s, other=0.0)
    tile = ring.index(slot % PLACES).slice(0, TILE)
    done_a, done_b = done
    product_a = warpgroup_mma(tile, queries[0], done_a, use_acc=never, is_async=True)
    product_b = warpgroup_mma(tile, queries[1], done_b, use_acc=never, is_async=True)
    for number in gl.static_range(1, TILES + 1):
        next_keys = tile_keys + TILE
        next_scales = gl.load(scales + next_keys, mask=(next_keys < s) & (number < TILES), other=0.0)
        tile = ring.index((slot + number // 2) % PLACES).slice(number % 2 * TILE, TILE)
        done_a = warpgroup_mma_wait(1, deps=[product_a])
        _write(out[0], tile_keys, limits[0], _scores(done_a, weights[0], tile_scales, HEADS))
        if number < TILES:
            product_a = warpgroup_mma(tile, queries[0], done_a, use_acc=never, is_async=True)
            done_b = warpgroup_mma_wait(1, deps=[product_b])
        else:
            done_b = warpgroup_mma_wait(0, deps=[product_b])
            for ahead in gl.static_range(SLOTS):
                coming = key + (PLACES + ahead) * SLOT
                _refill(key_tiles, ring, full, slot + ahead, coming, coming < last)
        _write(out[1], tile_keys, limits[1], _scores(done_b, weights[1], tile_scales, HEADS))
        if number < TILES:
            product_b = warpgroup_mma(tile, queries[1], done_b, use_acc=never, is_async=True)
        tile_keys = next_keys
        tile_scales = next_scales
    return done_a, done_b


@gluon.jit
def _hide(out, row, t, out_stride, low, high, begin, end, ROWS: gl.constexpr):
    """-inf into those of columns [begin, end) that lie outside [low, high) of their row."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 1], [1, 32], [4, 1], [1, 0])
    ROW: gl.constexpr = gl.SliceLayout(1, LAYOUT)
    row, low, high = gl.convert_layout(row, ROW), gl.convert_layout(low, ROW), gl.convert_layout(high, ROW)
    # Rows that see nothing are hidden from the left. Rows beyond the last have no part in the bounds.
    seen = (row < t) & (low < high)
    low = gl.where(seen, low, gl.where(row < t, end, begin))
    high = gl.where(seen, high, end)
    column = gl.arange(0, 256, layout=gl.SliceLayout(0, LAYOUT))
    place = out + (row.to(gl.int64) * out_stride)[:, None]
    nothing = gl.full([ROWS, 256], float("-inf"), gl.float32, LAYOUT)
    for offset in range(begin, gl.max(low, axis=0), 256):
        columns = (offset + column)[None, :]
        gl.store(place + columns, nothing, mask=(columns < low[:, None]) & (row < t)[:, None])
    for offset in range(gl.min(high, axis=0), end, 256):
        columns = (offset + column)[None, :]
        gl.store(place + columns, nothing, mask=(columns >= high[:, None]) & (columns < end) & (row < t)[:, None])


@gluon.jit(do_not_specialize=["t", "s", "row_blocks"])
def logits_kernel(
    q_tiles,
    key_tiles,
    scales,
    head_weights,
    starts,
    ends,
    out,
    t,
    s,
    weight_stride,
    out_stride,
    row_blocks,
    chunk_keys,
    HEADS: gl.constexpr,
    PLACES: gl.constexpr,
    UNROLL: gl.constexpr,
    CLEAN: gl.constexpr,
):
    """Logits of a block of query rows and a chunk of keys, by a ring of PLACES, UNROLL slots in a body of the loop."""
    HALF: gl.constexpr = COLUMNS // HEADS  # query rows of a product
    QUERY: gl.constexpr = gl.SliceLayout(0, _score_layout(HEADS))
    BOUNDS: gl.constexpr = gl.BlockedLayout([1], [32], [4], [0])

    program = gl.program_id(0)
    # The last rows first: in a causal prefill they see most.
    first_row = (row_blocks - 1 - program % row_blocks) * (2 * HALF)
    begin = program // row_blocks * chunk_keys
    end = gl.minimum(begin + chunk_keys, s)
    row = first_row + gl.arange(0, 2 * HALF, layout=BOUNDS)
    low = gl.maximum(gl.load(starts + row, mask=row < t, other=0), begin)
    high = gl.minimum(gl.load(ends + row, mask=row < t, other=0), end)
    high = gl.where(low < high, high, begin)  # of a row that sees nothing here

    queries = gl.allocate_shared_memory(gl.float8e4nv, [2 * COLUMNS, CHANNELS], q_tiles.layout)
    ring = gl.allocate_shared_memory(gl.float8e4nv, [PLACES, SLOT, CHANNELS], key_tiles.layout)
    full = gl.allocate_shared_memory(gl.int64, [PLACES, 1], mbarrier.MBarrierLayout())
    q_full = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    if gl.max(high, axis=0) > begin:
        for place in gl.static_range(PLACES):
            mbarrier.init(full.index(place), count=1)
        mbarrier.init(q_full, count=1)
        fence_async_shared()
        barrier()
        mbarrier.expect(q_full, 2 * COLUMNS * CHANNELS)
        copy_to_shared(q_tiles, [first_row * HEADS, 0], q_full, queries)

        column = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, ACCUMULATOR))
        row_a, row_b = first_row + column // HEADS, first_row + HALF + column // HEADS
        weights_a = head_weights + row_a.to(gl.int64) * weight_stride + column % HEADS
        weights_a, weights_b = (
            gl.load(weights_a, mask=row_a < t, other=0.0),
            gl.load(weights_a + HALF * weight_stride, mask=row_b < t, other=0.0),
        )
        row_a = first_row + gl.arange(0, HALF, layout=QUERY)
        row_b = row_a + HALF
        outs = out + row_a.to(gl.int64) * out_stride, out + row_b.to(gl.int64) * out_stride
        limits = gl.where(row_a < t, s, 0), gl.where(row_b < t, s, 0)
        q_halves = queries.slice(0, COLUMNS).permute((1, 0)), queries.slice(COLUMNS, COLUMNS).permute((1, 0))
        done_a = gl.zeros([TILE, COLUMNS], gl.float32, ACCUMULATOR)
        done_b = done_a
        mbarrier.wait(q_full, 0)

        slot = 0  # of the ring, counted from the start
        key = begin
        # Each round takes the windows that cover the next tile that is seen at all, to the end of the longest.
        while gl.max(high, axis=0) > key:
            key = gl.min(gl.where(high > key, gl.maximum(low, key), end), axis=0) // SLOT * SLOT
            last = gl.max(gl.where(low < key + SLOT, high, begin), axis=0)
            for ahead in gl.static_range(PLACES):
                _refill(key_tiles, ring, full, slot + ahead, key + ahead * SLOT, key + ahead * SLOT < last)
            for _ in range((last - key + SLOT - 1) // (UNROLL * SLOT)):
                done_a, done_b = _advance(
                    key_tiles, ring, full, slot, key, last, q_halves, (weights_a, weights_b), outs, limits, scales, s,
                    (done_a, done_b), HEADS, UNROLL,
                )  # fmt: skip
                slot += UNROLL
                key += UNROLL * SLOT
            if UNROLL > 1:
                for _ in range((last - key + SLOT - 1) // SLOT):
                    done_a, done_b = _advance(
                        key_tiles, ring, full, slot, key, last, q_halves, (weights_a, weights_b), outs, limits, scales,
                        s, (done_a, done_b), HEADS, 1,
                    )  # fmt: skip
                    slot += 1
                    key += SLOT
    if CLEAN:
        barrier()  # after what was written in whole tiles
        _hide(out, row, t, out_stride, low, high, begin, end, 2 * HALF)


def write_logits(call: Call, out: torch.Tensor, launch: HopperLaunch) -> None:
    """Launch the kernel for a call that has rows and keys; `out` is f32 [t, s], rows as far apart as wanted."""
    t, heads, channels = call.q.shape
    s = call.keys.shape[0]
    row_blocks = triton.cdiv(t * heads, 256)
    layout = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=8, rank=2)
    logits_kernel[(row_blocks * triton.cdiv(s, launch.chunk_keys),)](
        TensorDescriptor.from_tensor(call.q.view(t * heads, channels), [256, channels], layout),
        TensorDescriptor.from_tensor(call.keys, [128, channels], layout),
        call.scales,
        call.head_weights,
        call.starts,
        call.ends,
        out,
        t,
        s,
        call.head_weights.stride(0),
        out.stride(0),
        row_blocks,
        launch.chunk_keys,
        HEADS=heads,
        PLACES=launch.stages,
        UNROLL=launch.unroll,
        CLEAN=call.clean,
        num_warps=4,
        enable_fp_fusion=True,
    )
