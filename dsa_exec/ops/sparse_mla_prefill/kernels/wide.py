"""Attention over selected rows on Hopper, 64 heads a program: the rows of both products are heads.

Two warpgroups multiply, one copies. A tile has 64 gathered rows, in three parts: the left and the right half of the
values, and the RoPE part. Even tiles are scored by the first warpgroup, odd ones by the second; each then adds every
tile to its own half of the output's channels, the first to the left. The owner of a tile hands its weights to the other
through shared memory, where the RoPE part was, with the scale of all that came before:

    first:   score 0, add 0        | wait for 1, add 1, score 2, add 2 | ...
    second:  score 1, add 0, add 1 | score 3, add 2, add 3             | ...

So one warpgroup's softmax runs beside the other's products. A half of a tile is refilled as soon as the warpgroup whose
channels it holds has added it; the RoPE part when the other one has read the weights.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    async_copy,
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from dsa_exec.ops.sparse_mla_prefill.kernels.gathered import (
    KEYS,
    ROPE,
    VALUES,
    barrier,
    barriers,
    copy_to_shared,
    end_softmax,
    finite,
    not_known,
    row_pointers,
)

HEADS = gl.constexpr(64)
HALF = gl.constexpr(256)  # value channels
FIRST = gl.constexpr(0)
SECOND = gl.constexpr(1)


@gluon.jit
def _copy_parts(tiles, buffer, pointers, exists, full, RIGHT: gl.constexpr, WITH_ROPE: gl.constexpr, L: gl.constexpr):
    """Start copies of one half of a tile, and of the RoPE part with the half that arrives last."""
    half = gl.arange(0, HALF, layout=gl.SliceLayout(0, L))[None, :]
    copy_to_shared(tiles[RIGHT].index(buffer), pointers + (RIGHT * HALF + half), mask=exists[:, None])
    if WITH_ROPE:
        rope = gl.arange(0, ROPE, layout=gl.SliceLayout(0, L))[None, :]
        copy_to_shared(tiles[2].index(buffer), pointers + (VALUES + rope), mask=exists[:, None])
    async_copy.mbarrier_arrive(full, increment_count=False)


@gluon.jit
def _copy(
    q, kv, indices, key_count, heads, k, q_head_eighths, kv_row_eighths, first_head, queries, tiles, named_rows, bars
):
    """The copying warpgroup: the queries, then tile after tile, each half as soon as its buffer is free."""
    queries_full, named_full, full, free, _, _ = bars
    L: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    position = gl.arange(0, KEYS, layout=gl.SliceLayout(1, L))
    head = first_head + position
    pointers = row_pointers(q, head, head < heads, q_head_eighths)
    _copy_parts(queries, 0, pointers, head < heads, queries_full, 0, False, L)
    _copy_parts(queries, 0, pointers, head < heads, queries_full, 1, True, L)
    index = gl.load(indices + position, mask=position < k, other=-1)
    for pair in range(gl.cdiv(k, 2 * KEYS)):
        phase = (pair & 1) ^ 1
        for own in gl.static_range(2):
            named = (index >= 0) & (index < key_count)
            pointers = row_pointers(kv, index, named, kv_row_eighths)
            following = (2 * pair + own + 1) * KEYS + position
            index = gl.load(indices + following, mask=following < k, other=-1)
            # The owner's half first: it is free first, and the owner scores it first.
            mbarrier.wait(free[own].index(own), phase)
            named_rows.index(own).store(named.to(gl.int8))
            barrier()
            mbarrier.arrive(named_full.index(own))
            _copy_parts(tiles, own, pointers, named, full[own].index(own), own, False, L)
            mbarrier.wait(free[1 - own].index(own), phase)
            _copy_parts(tiles, own, pointers, named, full[1 - own].index(own), 1 - own, True, L)


@gluon.jit
def _score(OWN: gl.constexpr, queries, tiles, full, phase, L: gl.constexpr):
    """Start the products of the queries with the warpgroup's own tile, each half as it arrives."""
    own = not_known(OWN)
    zero = not_known(0)
    mbarrier.wait(full[OWN].index(OWN), phase)
    fence_async_shared()
    scores = gl.zeros([HEADS, KEYS], gl.float32, layout=L)
    half = tiles[OWN].index(own).permute((1, 0))
    scores = warpgroup_mma(queries[OWN].index(zero), half, scores, use_acc=False, is_async=True)
    mbarrier.wait(full[1 - OWN].index(OWN), phase)
    fence_async_shared()
    half = tiles[1 - OWN].index(own).permute((1, 0))
    scores = warpgroup_mma(queries[1 - OWN].index(zero), half, scores, is_async=True)
    return warpgroup_mma(queries[2].index(zero), tiles[2].index(own).permute((1, 0)), scores, is_async=True)


@gluon.jit
def _add_other(OTHER: gl.constexpr, tiles, handed, weights_full, phase, total, summed):
    """Start adding the other warpgroup's tile to this one's channels; the largest scores are as of that tile."""
    L: gl.constexpr = total.type.layout
    other = not_known(OTHER)
    mbarrier.wait(weights_full.index(OTHER), phase)
    fence_async_shared()
    top = handed[0].index(OTHER).load(L)
    decay = handed[1].index(OTHER).load(L)
    summed = summed * gl.convert_layout(decay, gl.SliceLayout(1, summed.type.layout))[:, None]
    summed = warpgroup_mma(tiles[2].index(other), tiles[1 - OTHER].index(other), summed, is_async=True)
    return top, total * decay, summed


@gluon.jit
def _multiply(OWN: gl.constexpr, sink, out, lse, scale, heads, k, first_head, queries, tiles, named_rows, handed, bars,
              HAS_SINK: gl.constexpr):  # fmt: skip
    """A multiplying warpgroup: the first owns even tiles and the left half of the values, the second the others."""
    queries_full, named_full, full, free, weights_full, totals_full = bars
    SCORES: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, KEYS, 16])
    SUMS: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, HALF, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(operand_index=0, parent=SUMS, k_width=2)
    ROWS: gl.constexpr = gl.SliceLayout(1, SCORES)
    SUM_ROWS: gl.constexpr = gl.SliceLayout(1, SUMS)
    OTHER: gl.constexpr = 1 - OWN
    pairs = gl.cdiv(k, 2 * KEYS)
    top = gl.full([HEADS], float("-inf"), gl.float32, layout=ROWS)
    total = gl.zeros([HEADS], gl.float32, layout=ROWS)
    summed = gl.zeros([HEADS, HALF], gl.float32, layout=SUMS)
    mbarrier.wait(queries_full, 0)
    for pair in range(pairs):
        phase = pair & 1
        if OWN == FIRST:
            # The other's last tile is there long before the own next one.
            if pair > 0:
                top, total, summed = _add_other(OTHER, tiles, handed, weights_full, phase ^ 1, total, summed)
                summed = warpgroup_mma_wait(0, deps=[summed])
                barrier()
                mbarrier.arrive(free[OWN].index(OTHER))
            scores = _score(OWN, queries, tiles, full, phase, SCORES)
            scores = warpgroup_mma_wait(0, deps=[scores])
        else:
            # The own tile is there before the other's weights, whose product runs beside this softmax.
            scores = _score(OWN, queries, tiles, full, phase, SCORES)
            top, total, adding = _add_other(OTHER, tiles, handed, weights_full, phase, total, summed)
            scores = warpgroup_mma_wait(1, deps=[scores])
        mbarrier.wait(named_full.index(OWN), phase)
        named = named_rows.index(OWN).load(gl.SliceLayout(0, SCORES)) != 0
        scores = gl.where(named[None, :], scores * scale, float("-inf"))
        new_top = gl.maximum(top, gl.max(scores, axis=1))
        base = finite(new_top)
        weights = gl.exp2(scores - base[:, None])
        decay = gl.exp2(top - base)
        top = new_top
        rounded = weights.to(gl.bfloat16)
        tiles[2].index(OWN).store(rounded)
        handed[0].index(OWN).store(top)
        handed[1].index(OWN).store(decay)
        fence_async_shared()
        barrier()
        mbarrier.arrive(weights_full.index(OWN))
        total = total * decay + gl.sum(weights, axis=1)
        if OWN == SECOND:
            summed = warpgroup_mma_wait(0, deps=[adding])
            barrier()
            mbarrier.arrive(free[OWN].index(OTHER))
        summed = summed * gl.convert_layout(decay, SUM_ROWS)[:, None]
        half = tiles[OWN].index(not_known(OWN))
        summed = warpgroup_mma(gl.convert_layout(rounded, WEIGHTS), half, summed, is_async=True)
        summed = warpgroup_mma_wait(0, deps=[summed])
        barrier()
        mbarrier.arrive(free[OWN].index(OWN))
    if OWN == FIRST:
        top, total, summed = _add_other(OTHER, tiles, handed, weights_full, (pairs - 1) & 1, total, summed)
        summed = warpgroup_mma_wait(0, deps=[summed])
    handed[2].index(OWN).store(total)
    barrier()
    mbarrier.arrive(totals_full)
    mbarrier.wait(totals_full, 0)
    total = handed[2].index(0).load(ROWS) + handed[2].index(1).load(ROWS)
    head = first_head + gl.arange(0, HEADS, layout=ROWS)
    factor, row_lse = end_softmax(top, total, sink, head, heads, HAS_SINK)
    if OWN == FIRST:
        gl.store(lse + head, row_lse, mask=head < heads)
    # By way of a half tile that nobody else reads any more, so that whole lines are written.
    staged = tiles[OWN].index(OWN)
    staged.store((summed * gl.convert_layout(factor, SUM_ROWS)[:, None]).to(gl.bfloat16))
    barrier()
    LINES: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [4, 1], [1, 0])
    head = first_head + gl.arange(0, HEADS, layout=gl.SliceLayout(1, LINES))
    channel = OWN * HALF + gl.arange(0, HALF, layout=gl.SliceLayout(0, LINES))
    gl.store(out + head[:, None] * VALUES + channel[None, :], staged.load(LINES), mask=(head < heads)[:, None])


# Numbers that bring nothing to the generated code but more versions of it.
@gluon.jit(do_not_specialize=["key_count", "heads", "k", "head_blocks", "q_row_eighths", "q_head_eighths",
                              "kv_row_eighths", "index_row_stride"])  # fmt: skip
def attend_wide(q, kv, indices, sink, out, lse, scale, key_count, heads, k, head_blocks, q_row_eighths, q_head_eighths,
                kv_row_eighths, index_row_stride, HAS_SINK: gl.constexpr, COPY_REGISTERS: gl.constexpr,
                REGISTERS: gl.constexpr):  # fmt: skip
    """Programs are in the order of rows, then blocks of heads: blocks share in L2 what they gather."""
    OPERAND: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(vec=1, per_phase=1, max_phase=1, order=[0])
    first_head = gl.program_id(0) % head_blocks * HEADS
    row = (gl.program_id(0) // head_blocks).to(gl.int64)
    q += row * q_row_eighths * 8
    indices += row * index_row_stride
    out += row * heads * VALUES
    lse += row * heads
    queries = (
        gl.allocate_shared_memory(gl.bfloat16, [1, HEADS, HALF], OPERAND),
        gl.allocate_shared_memory(gl.bfloat16, [1, HEADS, HALF], OPERAND),
        gl.allocate_shared_memory(gl.bfloat16, [1, HEADS, ROPE], OPERAND),
    )
    tiles = (
        gl.allocate_shared_memory(gl.bfloat16, [2, KEYS, HALF], OPERAND),
        gl.allocate_shared_memory(gl.bfloat16, [2, KEYS, HALF], OPERAND),
        gl.allocate_shared_memory(gl.bfloat16, [2, KEYS, ROPE], OPERAND),
    )
    named_rows = gl.allocate_shared_memory(gl.int8, [2, KEYS], PLAIN)
    # Of each warpgroup: the largest scores and the scale of what came before, as of its tile, and its sum of weights.
    handed = (
        gl.allocate_shared_memory(gl.float32, [2, HEADS], PLAIN),
        gl.allocate_shared_memory(gl.float32, [2, HEADS], PLAIN),
        gl.allocate_shared_memory(gl.float32, [2, HEADS], PLAIN),
    )
    # Copies arrive thread by thread: of the queries twice, of a half tile once.
    bars = (
        barriers(1, 256).index(0),
        barriers(2, 1),
        (barriers(2, 128), barriers(2, 128)),
        (barriers(2, 1), barriers(2, 1)),
        barriers(2, 1),
        barriers(1, 2).index(0),
    )
    # The tuples of arguments must stand here: one that comes from a variable is not lowered.
    gl.warp_specialize(
        [
            (_multiply, (0, sink, out, lse, scale, heads, k, first_head, queries, tiles, named_rows, handed, bars,
                         HAS_SINK)),
            (_multiply, (1, sink, out, lse, scale, heads, k, first_head, queries, tiles, named_rows, handed, bars,
                         HAS_SINK)),
            (_copy, (q, kv, indices, key_count, heads, k, q_head_eighths, kv_row_eighths, first_head, queries, tiles,
                     named_rows, bars)),
        ],
        [4, 4],
        [REGISTERS, COPY_REGISTERS],
    )  # fmt: skip
