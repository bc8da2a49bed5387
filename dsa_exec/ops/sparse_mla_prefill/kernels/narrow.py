"""Attention over selected rows on Hopper, 16 or 32 heads a program: the rows of both products are keys, then channels.

The matrix units take 64 rows at least. With heads as the narrow side of both products, few heads are not padded to 64:
scores [keys, heads] = rows x queries, and sums [channels, heads] = values, seen the other way round, x weights.

One warpgroup multiplies, one copies, and two programs share a multiprocessor. A tile has 64 gathered rows in parts,
four of 128 value channels and the RoPE part. Value parts go through a ring of buffers, so that a part is refilled as
soon as its channels are added, while the others still are.
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
    read_as,
    row_pointers,
)

PART = gl.constexpr(128)  # value channels
PARTS = gl.constexpr(4)


@gluon.jit
def _following(buffer, phase, BUFFERS: gl.constexpr):
    """The next buffer of the ring, and its phase."""
    wraps = buffer + 1 == BUFFERS
    return gl.where(wraps, 0, buffer + 1), gl.where(wraps, phase ^ 1, phase)


@gluon.jit
def _copy(q, kv, indices, key_count, heads, k, q_head_eighths, kv_row_eighths, first_head, queries, parts, ropes,
          named_rows, bars):  # fmt: skip
    """The copying warpgroup: the queries, then tile after tile, each part as soon as a buffer is free."""
    queries_full, named_full, full, free, rope_full, rope_free = bars
    BUFFERS: gl.constexpr = parts.shape[0]
    HEADS: gl.constexpr = queries[0].shape[1]
    L: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [4, 1], [1, 0])
    part_channel = gl.arange(0, PART, layout=gl.SliceLayout(0, L))[None, :]
    rope_channel = VALUES + gl.arange(0, ROPE, layout=gl.SliceLayout(0, L))[None, :]
    head = first_head + gl.arange(0, HEADS, layout=gl.SliceLayout(1, L))
    exists = (head < heads)[:, None]
    query = row_pointers(q, head, head < heads, q_head_eighths)
    for part in gl.static_range(PARTS):
        copy_to_shared(queries[0].index(part), query + (part * PART + part_channel), mask=exists)
    copy_to_shared(queries[1].index(0), query + rope_channel, mask=exists)
    async_copy.mbarrier_arrive(queries_full, increment_count=False)
    position = gl.arange(0, KEYS, layout=gl.SliceLayout(1, L))
    index = gl.load(indices + position, mask=position < k, other=-1)
    buffer = 0
    phase = 1
    for tile in range(gl.cdiv(k, KEYS)):
        named = (index >= 0) & (index < key_count)
        pointers = row_pointers(kv, index, named, kv_row_eighths)
        following = (tile + 1) * KEYS + position
        index = gl.load(indices + following, mask=following < k, other=-1)
        named_rows.index(tile & 1).store(named.to(gl.int8))
        barrier()
        mbarrier.arrive(named_full.index(tile & 1))
        for part in gl.static_range(PARTS):
            mbarrier.wait(free.index(buffer), phase)
            copy_to_shared(parts.index(buffer), pointers + (part * PART + part_channel), mask=named[:, None])
            async_copy.mbarrier_arrive(full.index(buffer), increment_count=False)
            buffer, phase = _following(buffer, phase, BUFFERS)
            if part == 0:
                mbarrier.wait(rope_free, (tile & 1) ^ 1)
                copy_to_shared(ropes.index(0), pointers + rope_channel, mask=named[:, None])
                async_copy.mbarrier_arrive(rope_full, increment_count=False)


@gluon.jit
def _score(part, buffer, phase, queries, parts, full, scores, FIRST: gl.constexpr):
    """Start the product of one part of a tile with the queries, when it is there."""
    mbarrier.wait(full.index(buffer), phase)
    fence_async_shared()
    part_queries = queries[0].index(not_known(0) + part).permute((1, 0))
    return warpgroup_mma(parts.index(buffer), part_queries, scores, use_acc=not FIRST, is_async=True)


@gluon.jit
def _add(buffer, parts, weights, summed):
    """Start adding one part of a tile to its channels."""
    return warpgroup_mma(parts.index(buffer).permute((1, 0)), weights.index(not_known(0)), summed, is_async=True)


@gluon.jit
def _write(part, summed, factor, parts, out, first_head, heads):
    """Write the outputs of one part's channels, by way of a buffer that nobody reads any more: whole lines at once."""
    HEADS: gl.constexpr = summed.shape[1]
    OPERAND: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    LINES: gl.constexpr = gl.BlockedLayout([1, 8], [2, 16], [4, 1], [1, 0])
    staged = read_as(parts.index(part), gl.bfloat16, [HEADS, PART], OPERAND)
    staged.permute((1, 0)).store((summed * factor[None, :]).to(gl.bfloat16))
    barrier()
    head = first_head + gl.arange(0, HEADS, layout=gl.SliceLayout(1, LINES))
    channel = part * PART + gl.arange(0, PART, layout=gl.SliceLayout(0, LINES))
    gl.store(out + head[:, None] * VALUES + channel[None, :], staged.load(LINES), mask=(head < heads)[:, None])


@gluon.jit
def _multiply(sink, out, lse, scale, heads, k, first_head, queries, parts, ropes, weights, named_rows, bars,
              HAS_SINK: gl.constexpr):  # fmt: skip
    """The multiplying warpgroup. Sums of weights stay apart by keys until the end."""
    queries_full, named_full, full, free, rope_full, rope_free = bars
    BUFFERS: gl.constexpr = parts.shape[0]
    HEADS: gl.constexpr = queries[0].shape[1]
    L: gl.constexpr = gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, HEADS, 16])
    COLUMNS: gl.constexpr = gl.SliceLayout(0, L)
    top = gl.full([HEADS], float("-inf"), gl.float32, layout=COLUMNS)
    totals = gl.zeros([KEYS, HEADS], gl.float32, layout=L)
    sum0 = gl.zeros([PART, HEADS], gl.float32, layout=L)
    sum1 = gl.zeros([PART, HEADS], gl.float32, layout=L)
    sum2 = gl.zeros([PART, HEADS], gl.float32, layout=L)
    sum3 = gl.zeros([PART, HEADS], gl.float32, layout=L)
    buffer3 = BUFFERS - 1
    phase3 = 1
    mbarrier.wait(queries_full, 0)
    for tile in range(gl.cdiv(k, KEYS)):
        buffer0, phase0 = _following(buffer3, phase3, BUFFERS)
        buffer1, phase1 = _following(buffer0, phase0, BUFFERS)
        buffer2, phase2 = _following(buffer1, phase1, BUFFERS)
        buffer3, phase3 = _following(buffer2, phase2, BUFFERS)
        scores = gl.zeros([KEYS, HEADS], gl.float32, layout=L)
        scores = _score(0, buffer0, phase0, queries, parts, full, scores, True)
        mbarrier.wait(rope_full, tile & 1)
        fence_async_shared()
        zero = not_known(0)
        scores = warpgroup_mma(ropes.index(zero), queries[1].index(zero).permute((1, 0)), scores, is_async=True)
        scores = _score(1, buffer1, phase1, queries, parts, full, scores, False)
        scores = _score(2, buffer2, phase2, queries, parts, full, scores, False)
        scores = _score(3, buffer3, phase3, queries, parts, full, scores, False)
        mbarrier.wait(named_full.index(tile & 1), (tile // 2) & 1)
        named = named_rows.index(tile & 1).load(gl.SliceLayout(1, L)) != 0
        scores = warpgroup_mma_wait(0, deps=[scores])
        barrier()
        mbarrier.arrive(rope_free)
        scores = gl.where(named[:, None], scores * scale, float("-inf"))
        new_top = gl.maximum(top, gl.max(scores, axis=0))
        base = finite(new_top)
        relative = gl.exp2(scores - base[None, :])
        decay = gl.exp2(top - base)
        top = new_top
        weights.index(0).store(relative.to(gl.bfloat16))
        totals = totals * decay[None, :] + relative
        fence_async_shared()
        barrier()
        sum0 = _add(buffer0, parts, weights, sum0 * decay[None, :])
        sum1 = _add(buffer1, parts, weights, sum1 * decay[None, :])
        sum2 = _add(buffer2, parts, weights, sum2 * decay[None, :])
        sum3 = _add(buffer3, parts, weights, sum3 * decay[None, :])
        sum0 = warpgroup_mma_wait(3, deps=[sum0])
        barrier()
        mbarrier.arrive(free.index(buffer0))
        sum1 = warpgroup_mma_wait(2, deps=[sum1])
        barrier()
        mbarrier.arrive(free.index(buffer1))
        sum2 = warpgroup_mma_wait(1, deps=[sum2])
        barrier()
        mbarrier.arrive(free.index(buffer2))
        sum3 = warpgroup_mma_wait(0, deps=[sum3])
        barrier()
        mbarrier.arrive(free.index(buffer3))
    head = first_head + gl.arange(0, HEADS, layout=COLUMNS)
    factor, row_lse = end_softmax(top, gl.sum(totals, axis=0), sink, head, heads, HAS_SINK)
    gl.store(lse + head, row_lse, mask=head < heads)
    _write(0, sum0, factor, parts, out, first_head, heads)
    _write(1, sum1, factor, parts, out, first_head, heads)
    _write(2, sum2, factor, parts, out, first_head, heads)
    _write(3, sum3, factor, parts, out, first_head, heads)


# Numbers that bring nothing to the generated code but more versions of it.
@gluon.jit(do_not_specialize=["key_count", "heads", "k", "head_blocks", "q_row_eighths", "q_head_eighths",
                              "kv_row_eighths", "index_row_stride"])  # fmt: skip
def attend_narrow(q, kv, indices, sink, out, lse, scale, key_count, heads, k, head_blocks, q_row_eighths,
                  q_head_eighths, kv_row_eighths, index_row_stride, HEADS: gl.constexpr, BUFFERS: gl.constexpr,
                  HAS_SINK: gl.constexpr,
                  COPY_REGISTERS: gl.constexpr):  # fmt: skip
    """Programs are in the order of rows, then blocks of heads."""
    OPERAND: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=16, rank=2)
    WEIGHTS: gl.constexpr = gl.NVMMASharedLayout(swizzle_byte_width=2 * HEADS, element_bitwidth=16, rank=2)
    PLAIN: gl.constexpr = gl.SwizzledSharedLayout(vec=1, per_phase=1, max_phase=1, order=[0])
    first_head = gl.program_id(0) % head_blocks * HEADS
    row = (gl.program_id(0) // head_blocks).to(gl.int64)
    q += row * q_row_eighths * 8
    indices += row * index_row_stride
    out += row * heads * VALUES
    lse += row * heads
    queries = (
        gl.allocate_shared_memory(gl.bfloat16, [PARTS, HEADS, PART], OPERAND),
        gl.allocate_shared_memory(gl.bfloat16, [1, HEADS, ROPE], OPERAND),
    )
    parts = gl.allocate_shared_memory(gl.bfloat16, [BUFFERS, KEYS, PART], OPERAND)
    ropes = gl.allocate_shared_memory(gl.bfloat16, [1, KEYS, ROPE], OPERAND)
    weights = gl.allocate_shared_memory(gl.bfloat16, [1, KEYS, HEADS], WEIGHTS)
    named_rows = gl.allocate_shared_memory(gl.int8, [2, KEYS], PLAIN)
    # Copies arrive thread by thread.
    bars = (
        barriers(1, 128).index(0),
        barriers(2, 1),
        barriers(BUFFERS, 128),
        barriers(BUFFERS, 1),
        barriers(1, 128).index(0),
        barriers(1, 1).index(0),
    )
    # The tuples of arguments must stand here: one that comes from a variable is not lowered.
    gl.warp_specialize(
        [
            (_multiply, (sink, out, lse, scale, heads, k, first_head, queries, parts, ropes, weights, named_rows, bars,
                         HAS_SINK)),
            (_copy, (q, kv, indices, key_count, heads, k, q_head_eighths, kv_row_eighths, first_head, queries, parts,
                     ropes, named_rows, bars)),
        ],
        [4],
        [COPY_REGISTERS],
    )  # fmt: skip
