"""Indexer scores on Hopper's matrix units, for kernels that hold 256 columns of queries and go over gathered keys.

A program of four warps has 256 columns of (query row, head); two programs share a multiprocessor. Keys are the 64 rows
of a matrix product and (row, head) its columns, so that the sum over heads stays within a row of the accumulator. Keys
come through a ring that the copy engine fills, 128 to a slot.

Two products are in flight, each for half of the query rows: while the matrix units work on one, the warps bring the
other through relu, weights and the sum. A product must begin and end within one body of the loop: the compiler waits
at every instruction for one that crosses the back edge, so that the body takes more than one slot.

What becomes of the scores is the kernel's: `advance` gives them to a function of it.
"""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import mbarrier, tma, warpgroup_mma, warpgroup_mma_wait

# Newer Tritons renamed both.
copy_to_shared = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
barrier = gl.barrier if hasattr(gl, "barrier") else gl.thread_barrier

TILE = gl.constexpr(64)  # keys of a product
SLOT = gl.constexpr(128)  # keys of a slot of the ring
CHANNELS = gl.constexpr(128)
COLUMNS = gl.constexpr(128)  # columns of a product; a program has two
ACCUMULATOR = gl.constexpr(gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, 128, 32]))
NAN_STAYS = gl.constexpr(tl.PropagateNan.ALL)
TILES = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=8, rank=2)
"""How the copy engine lays down tiles of queries, 256 rows, and of keys, 128."""


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
def score_layout(heads):
    """Of scores, [64 keys, query rows of a product]: one a thread for each two rows."""
    return _layout(heads, [], [[8, 0], [0, 1]])


@gluon.constexpr_function
def _half_sums_layout(heads):
    return _layout(heads, [[0, 0, 1]], [[8, 0, 0], [0, 1, 0]], 2)


@gluon.constexpr_function
def _quarter_sums_layout(heads):
    return _layout(heads, [[0, 0, 1, 0], [8, 0, 0, 0]], [[0, 0, 0, 1], [0, 1, 0, 0]], 2, 2)


@gluon.jit
def load_weights(head_weights, first_row, t, weight_stride, HEADS: gl.constexpr):
    """Weights of a program's columns, those of the first and of the second half of its rows; 0 beyond row t."""
    column = gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, ACCUMULATOR))
    row_a, row_b = first_row + column // HEADS, first_row + COLUMNS // HEADS + column // HEADS
    weights_a = head_weights + row_a.to(gl.int64) * weight_stride + column % HEADS
    weights_b = weights_a + COLUMNS // HEADS * weight_stride
    return gl.load(weights_a, mask=row_a < t, other=0.0), gl.load(weights_b, mask=row_b < t, other=0.0)


@gluon.jit
def _sums(accumulator, weights, HEADS: gl.constexpr):
    """Sums over heads of weight * relu(product), each in four parts: [64 keys, queries, 2, 2]."""
    QUERIES: gl.constexpr = COLUMNS // HEADS
    parts = gl.maximum(accumulator, 0.0, propagate_nan=NAN_STAYS) * weights[None, :]
    # A thread holds the third and the last axis whole: sums there need no other thread.
    parts = gl.permute(gl.reshape(parts, [TILE, QUERIES, HEADS // 8, 4, 2]), (0, 1, 3, 2, 4))
    return gl.sum(gl.reshape(parts, [TILE, QUERIES, 2, 2, HEADS // 4]), axis=4)


@gluon.jit
def _scores(parts, scales, HEADS: gl.constexpr):
    """scales[key] * the sum of the four parts: [64 keys, queries]."""
    QUERIES: gl.constexpr = COLUMNS // HEADS
    SCORES: gl.constexpr = score_layout(HEADS)
    # The four lanes of a quad hold parts of the same sums. They trade one half for another twice, and add.
    parts = gl.sum(gl.convert_layout(parts, _quarter_sums_layout(HEADS)), axis=2)
    parts = gl.sum(gl.convert_layout(parts, _half_sums_layout(HEADS)), axis=2)
    sums = gl.convert_layout(parts, SCORES, assert_trivial=True)
    zero = gl.zeros([TILE, QUERIES], gl.float32, SCORES)
    return gl.fma(sums, zero + scales[:, None], zero)  # adding 0.0 makes -0.0 equal to 0.0 at no cost


@gluon.jit
def refill(key_tiles, ring, full, slot, key, wanted):
    """Have the copy engine bring the keys from `key` on into a slot, if they are wanted."""
    place = slot % ring.shape[0]
    mbarrier.expect(full.index(place), SLOT * CHANNELS, pred=wanted)
    copy_to_shared(key_tiles, [key, 0], full.index(place), ring.index(place), pred=wanted)


@gluon.jit
def advance(
    key_tiles, ring, full, slot, key, last, queries, weights, targets, scales, s, done, HEADS: gl.constexpr,
    SLOTS: gl.constexpr, WRITE: gl.constexpr, state=None, fixed=None, MEANWHILE: gl.constexpr = None,
):  # fmt: skip
    """Score the keys of SLOTS slots from `slot` on, whose first key is `key`, and refill the slots below key `last`.

    Pairs are for the two halves of the query rows. WRITE takes what `targets` has for one of them, the numbers of 64
    keys, and their scores, [keys, query rows] in `score_layout`. MEANWHILE(state, fixed, number), if there is one,
    gives the next state; it is called with 1, 2 and so on for each 64 keys, beside the sums of scores.

    Returns:
        `done`: the accumulators, for the next body to write over; and the state, if there is MEANWHILE.
    """
    PLACES: gl.constexpr = ring.shape[0]
    TILES: gl.constexpr = 2 * SLOTS
    never = s < 0  # the compiler cannot know; believing that the old sums are wanted, it keeps to two sets of registers
    for ahead in gl.static_range(SLOTS):
        mbarrier.wait(full.index((slot + ahead) % PLACES), (slot + ahead) // PLACES & 1)
    tile_keys = key + gl.arange(0, TILE, layout=gl.SliceLayout(1, score_layout(HEADS)))
    tile_scales = gl.load(scales + tile_keys, mask=tile_keys < s, other=0.0)
    tile = ring.index(slot % PLACES).slice(0, TILE)
    done_a, done_b = done
    product_a = warpgroup_mma(tile, queries[0], done_a, use_acc=never, is_async=True)
    product_b = warpgroup_mma(tile, queries[1], done_b, use_acc=never, is_async=True)
    # What a thread does with one half waits for other threads in the end; it is done beside the sums of the next half.
    keys_before = tile_keys
    scales_before = tile_scales
    parts_b = ()
    for number in gl.static_range(1, TILES + 1):
        next_keys = tile_keys + TILE
        next_scales = gl.load(scales + next_keys, mask=(next_keys < s) & (number < TILES), other=0.0)
        tile = ring.index((slot + number // 2) % PLACES).slice(number % 2 * TILE, TILE)
        done_a = warpgroup_mma_wait(1, deps=[product_a])
        parts_a = _sums(done_a, weights[0], HEADS)
        if number > 1:
            WRITE(targets[1], keys_before, _scores(parts_b, scales_before, HEADS))
        if number < TILES:
            product_a = warpgroup_mma(tile, queries[0], done_a, use_acc=never, is_async=True)
            done_b = warpgroup_mma_wait(1, deps=[product_b])
        else:
            done_b = warpgroup_mma_wait(0, deps=[product_b])
            for ahead in gl.static_range(SLOTS):
                coming = key + (PLACES + ahead) * SLOT
                refill(key_tiles, ring, full, slot + ahead, coming, coming < last)
        parts_b = _sums(done_b, weights[1], HEADS)
        WRITE(targets[0], tile_keys, _scores(parts_a, tile_scales, HEADS))
        if MEANWHILE is not None:
            state = MEANWHILE(state, fixed, number)
        if number < TILES:
            product_b = warpgroup_mma(tile, queries[1], done_b, use_acc=never, is_async=True)
        keys_before = tile_keys
        scales_before = tile_scales
        tile_keys = next_keys
        tile_scales = next_scales
    WRITE(targets[1], keys_before, _scores(parts_b, scales_before, HEADS))
    if MEANWHILE is None:
        return done_a, done_b
    else:  # noqa: RET505 -- the compiler goes on behind a return
        return (done_a, done_b), state
