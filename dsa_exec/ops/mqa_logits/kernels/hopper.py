"""Indexer scores of e4m3 keys of 128 channels on Hopper's matrix units, logits written as they are made.

A program owns a few query rows, 256 columns of (row, head), and a chunk of keys (`core/kernels/hopper_indexer.py`).
Tiles that no row of the program sees are not computed. `out` is written in whole tiles, cut to its rows and columns;
`clean` puts -inf over the rest at the end, which costs nothing where windows begin and end together.
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
from dsa_exec.ops.mqa_logits import Call
from dsa_exec.ops.mqa_logits.launch import HopperLaunch


@gluon.jit
def _write(target, keys, scores):
    out, limits = target
    gl.store(out[None, :] + keys[:, None], scores, mask=keys[:, None] < limits[None, :])


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
    QUERY: gl.constexpr = gl.SliceLayout(0, score_layout(HEADS))
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

        weights = load_weights(head_weights, first_row, t, weight_stride, HEADS)
        row_a = first_row + gl.arange(0, HALF, layout=QUERY)
        row_b = row_a + HALF
        target_a = out + row_a.to(gl.int64) * out_stride, gl.where(row_a < t, s, 0)
        target_b = out + row_b.to(gl.int64) * out_stride, gl.where(row_b < t, s, 0)
        q_halves = queries.slice(0, COLUMNS).permute((1, 0)), queries.slice(COLUMNS, COLUMNS).permute((1, 0))
        zero = gl.zeros([TILE, COLUMNS], gl.float32, ACCUMULATOR)
        done = zero, zero
        mbarrier.wait(q_full, 0)

        slot = 0  # of the ring, counted from the start
        key = begin
        # Each round takes the windows that cover the next tile that is seen at all, to the end of the longest.
        while gl.max(high, axis=0) > key:
            key = gl.min(gl.where(high > key, gl.maximum(low, key), end), axis=0) // SLOT * SLOT
            last = gl.max(gl.where(low < key + SLOT, high, begin), axis=0)
            for ahead in gl.static_range(PLACES):
                refill(key_tiles, ring, full, slot + ahead, key + ahead * SLOT, key + ahead * SLOT < last)
            for _ in range((last - key + SLOT - 1) // (UNROLL * SLOT)):
                done = advance(
                    key_tiles, ring, full, slot, key, last, q_halves, weights, (target_a, target_b),
                    scales, s, done, HEADS, UNROLL, _write,
                )  # fmt: skip
                slot += UNROLL
                key += UNROLL * SLOT
            if UNROLL > 1:
                for _ in range((last - key + SLOT - 1) // SLOT):
                    done = advance(
                        key_tiles, ring, full, slot, key, last, q_halves, weights, (target_a, target_b),
                        scales, s, done, HEADS, 1, _write,
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
    row_blocks = -(-t * heads // 256)
    logits_kernel[(row_blocks * -(-s // launch.chunk_keys),)](
        TensorDescriptor.from_tensor(call.q.view(t * heads, channels), [256, channels], TILES),
        TensorDescriptor.from_tensor(call.keys, [128, channels], TILES),
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
