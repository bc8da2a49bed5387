"""The multiplying role: scores, running softmax and values of a tile, with keys on the rows of the matrix units.

    scores^T [tokens, heads]  = tokens [64, 576]       @ queries^T [576, heads]
    sums^T [channels, heads] += latents^T [512, 64]    @ weights^T [64, heads]

The matrix units take 64 rows and few columns: 16 heads are 16 columns, where heads on the rows would be padded to 64.
Both products read one tile in shared memory, the second through a transposed view. Accumulators have one layout, so
that a head's maximum and factor need no exchange between them: one for each group of 128 channels, which share a
token's scale. The sum of a head's weights is kept a token and added up once, at the end.

A RAW tile holds codes, and scales are applied in f32: to the scores of each group, and to its weights. Those then are
relative to the largest product of weight and scale, so that float16 holds them whatever the scales are.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from dsa_exec.ops.sparse_mla_decode.kernels.gather import TOKENS, barrier

LATENT = gl.constexpr(512)
GROUP = gl.constexpr(128)
ROPE_CHANNELS = gl.constexpr(64)
LOG2_E = gl.constexpr(1.4426950408889634)
LN_2 = gl.constexpr(0.6931471805599453)
LEAST_SCALE = gl.constexpr(2.0**-100)
"""What a scale of zero counts as among scales, so that its logarithm is finite."""


@gluon.constexpr_function
def score_layout(heads, warps):
    """Of scores: with eight warps each warpgroup has half of the heads."""
    groups = warps // 4
    return gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, groups], instr_shape=[16, heads // groups, 16])


@gluon.constexpr_function
def sum_layout(heads, warps):
    """Of a group's sums: with eight warps each warpgroup has half of the channels, and reads half of the tile."""
    return gl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[warps, 1], instr_shape=[16, heads, 16])


@gluon.constexpr_function
def scale_layout(warps):
    """Of scales [64, 4]: the tokens of a thread are those of its rows of an accumulator."""
    return gl.DistributedLinearLayout(
        reg_bases=[[0, 1], [0, 2], [8, 0]],
        lane_bases=[[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]],
        warp_bases=[[16, 0], [32, 0]] + [[0, 0]] * (warps // 8),
        block_bases=[],
        shape=[64, 4],
    )


@gluon.jit
def load_queries(q, head, heads, head_stride, latent_queries, rope_queries):
    """Queries of a block of heads from `q`, where the row begins, to shared memory: zeros from `heads` on."""
    HEADS: gl.constexpr = latent_queries.shape[0]
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [gl.num_warps(), 1], [1, 0])
    number = head + gl.arange(0, HEADS, layout=gl.SliceLayout(1, LAYOUT))
    there = (number < heads)[:, None]
    at = q + (number.to(gl.int64) * head_stride)[:, None]
    channel = gl.arange(0, LATENT, layout=gl.SliceLayout(0, LAYOUT))
    latent_queries.store(gl.load(at + channel[None, :], mask=there, other=0.0).to(latent_queries.dtype))
    channel = LATENT + gl.arange(0, ROPE_CHANNELS, layout=gl.SliceLayout(0, LAYOUT))
    rope_queries.store(gl.load(at + channel[None, :], mask=there, other=0.0))


@gluon.jit
def _group_scores(latents, queries, G: gl.constexpr, SCORES: gl.constexpr):
    """Begin the product of one group of channels."""
    HEADS: gl.constexpr = queries.shape[0]
    zeros = gl.zeros([TOKENS, HEADS], gl.float32, layout=SCORES)
    left = latents.slice(G * GROUP, GROUP, dim=1)
    right = queries.slice(G * GROUP, GROUP, dim=1).permute((1, 0))
    return warpgroup_mma(left, right, zeros, use_acc=False, is_async=True)


@gluon.jit
def raw_scores(latents, ropes, scale_words, latent_queries, rope_queries, SCORES: gl.constexpr):
    """Scores of a tile of codes, and the scales of its four groups [64] each."""
    LAYOUT: gl.constexpr = scale_layout(gl.num_warps())
    HEADS: gl.constexpr = latent_queries.shape[0]
    scores = gl.zeros([TOKENS, HEADS], gl.float32, layout=SCORES)
    scores = warpgroup_mma(ropes, rope_queries.permute((1, 0)), scores, use_acc=False, is_async=True)
    a = _group_scores(latents, latent_queries, 0, SCORES)
    b = _group_scores(latents, latent_queries, 1, SCORES)
    scales = scale_words.load(LAYOUT).to(gl.float32, bitcast=True)
    even, odd = gl.split(gl.reshape(scales, [TOKENS, 2, 2]))
    s0, s2 = gl.split(even)
    s1, s3 = gl.split(odd)
    s0 = gl.convert_layout(s0, gl.SliceLayout(1, SCORES))
    s1 = gl.convert_layout(s1, gl.SliceLayout(1, SCORES))
    s2 = gl.convert_layout(s2, gl.SliceLayout(1, SCORES))
    s3 = gl.convert_layout(s3, gl.SliceLayout(1, SCORES))
    scores, a, b = warpgroup_mma_wait(0, deps=[scores, a, b])
    c = _group_scores(latents, latent_queries, 2, SCORES)
    d = _group_scores(latents, latent_queries, 3, SCORES)
    scores += a * s0[:, None] + b * s1[:, None]
    c, d = warpgroup_mma_wait(0, deps=[c, d])
    scores += c * s2[:, None] + d * s3[:, None]
    return scores, s0, s1, s2, s3


@gluon.jit
def attend_tile(
    latents,
    ropes,
    scale_words,
    latent_queries,
    rope_queries,
    w0,
    w1,
    w2,
    w3,
    named,
    scale,
    top,
    total,
    sums,
    SCORES: gl.constexpr,
    RAW: gl.constexpr,
):
    """Take a tile, of which the `named` tokens count, into the running softmax. A head without a key has top -inf."""
    HEADS: gl.constexpr = latent_queries.shape[0]
    if RAW:
        scores, s0, s1, s2, s3 = raw_scores(latents, ropes, scale_words, latent_queries, rope_queries, SCORES)
        scores = gl.where(named[:, None], scores * scale, float("-inf"))
        largest = gl.maximum(gl.maximum(s0, s1), gl.maximum(s2, s3))
        new_top = gl.maximum(top, gl.max(scores + gl.log2(gl.maximum(largest, LEAST_SCALE))[:, None], axis=0))
    else:
        scores = gl.zeros([TOKENS, HEADS], gl.float32, layout=SCORES)
        scores = warpgroup_mma(latents, latent_queries.permute((1, 0)), scores, use_acc=False, is_async=True)
        scores = warpgroup_mma(ropes, rope_queries.permute((1, 0)), scores, is_async=True)
        scores = warpgroup_mma_wait(0, deps=[scores])
        scores = gl.where(named[:, None], scores * scale, float("-inf"))
        new_top = gl.maximum(top, gl.max(scores, axis=0))
    base = gl.where(new_top == float("-inf"), 0.0, new_top)
    weight = gl.exp2(scores - base[None, :])
    decay = gl.exp2(top - base)
    if RAW:
        w0.store((weight * s0[:, None]).to(w0.dtype))
        w1.store((weight * s1[:, None]).to(w0.dtype))
        w2.store((weight * s2[:, None]).to(w0.dtype))
        w3.store((weight * s3[:, None]).to(w0.dtype))
    else:
        w0.store(weight.to(w0.dtype))
    total = total * decay[None, :] + weight
    decay = gl.convert_layout(decay, gl.SliceLayout(0, sums[0].type.layout))
    a, b, c, d = sums
    a *= decay[None, :]
    b *= decay[None, :]
    c *= decay[None, :]
    d *= decay[None, :]
    fence_async_shared()
    values = latents.permute((1, 0))
    a = warpgroup_mma(values.slice(0, GROUP), w0, a, is_async=True)
    b = warpgroup_mma(values.slice(GROUP, GROUP), w1, b, is_async=True)
    c = warpgroup_mma(values.slice(2 * GROUP, GROUP), w2, c, is_async=True)
    d = warpgroup_mma(values.slice(3 * GROUP, GROUP), w3, d, is_async=True)
    a, b, c, d = warpgroup_mma_wait(0, deps=[a, b, c, d])
    return new_top, total, (a, b, c, d)


@gluon.jit
def _write_sums(sums, factor, tile, out, place, head, heads):
    """Write sums times a factor of their head, through a tile that nobody needs any more; its rows are heads."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [gl.num_warps(), 1], [1, 0])
    for group in gl.static_range(4):
        part = tile.slice(group * GROUP, GROUP, dim=1).permute((1, 0))
        part.store((sums[group] * factor[None, :]).to(tile.dtype))
    barrier()
    attended = tile.load(LAYOUT)
    number = head + gl.arange(0, tile.shape[0], layout=gl.SliceLayout(1, LAYOUT))
    channel = gl.arange(0, LATENT, layout=gl.SliceLayout(0, LAYOUT))
    at = out + place * LATENT + (number * LATENT)[:, None] + channel[None, :]
    gl.store(at, attended, mask=(number < heads)[:, None])


@gluon.jit
def finish_part(sums, top, total, tile, parts, part_tops, place, head, heads):
    """Write a slice's normalised sums and its log2-sum-exp; NaN stays, and a slice without a key is zeros and -inf."""
    number = head + gl.arange(0, sums[0].shape[1], layout=gl.SliceLayout(0, sums[0].type.layout))
    nothing = total == 0.0
    tops = gl.where(nothing, float("-inf"), top + gl.log2(total))
    gl.store(part_tops + place + number, tops, mask=number < heads)
    factor = gl.where(nothing, 0.0, 1.0 / gl.where(nothing, 1.0, total))
    _write_sums(sums, factor, tile, parts, place, head, heads)


@gluon.jit
def finish_row(sums, top, total, tile, sink, out, lse, place, head, heads, HAS_SINK: gl.constexpr):
    """Write a row's output and its log-sum-exp."""
    number = head + gl.arange(0, sums[0].shape[1], layout=gl.SliceLayout(0, sums[0].type.layout))
    nothing = total == 0.0
    some = gl.where(nothing, 1.0, total)
    denominator = some
    if HAS_SINK:
        sinks = gl.load(sink + number, mask=number < heads, other=float("-inf"))
        denominator += gl.exp2(sinks * LOG2_E - gl.where(top == float("-inf"), 0.0, top))
    row_lse = gl.where(nothing, float("-inf"), (top + gl.log2(some)) * LN_2)
    gl.store(lse + place + number, row_lse, mask=number < heads)
    _write_sums(sums, gl.where(nothing, 0.0, 1.0 / denominator), tile, out, place, head, heads)


@gluon.jit
def attend_slice(
    q,
    slots,
    sink,
    out,
    lse,
    scale,
    begin,
    end,
    slot_count,
    head,
    heads,
    head_stride,
    place,
    latent_queries,
    rope_queries,
    latents,
    ropes,
    scale_words,
    w0,
    w1,
    w2,
    w3,
    outputs,
    full,
    empty,
    BUFFERS: gl.constexpr,
    PARTS: gl.constexpr,
    HAS_SINK: gl.constexpr,
    RAW: gl.constexpr,
):
    """A block of heads over the tiles of slots [begin, end) as they come."""
    HEADS: gl.constexpr = latent_queries.shape[0]
    SCORES: gl.constexpr = score_layout(HEADS, gl.num_warps())
    SUMS: gl.constexpr = sum_layout(HEADS, gl.num_warps())
    load_queries(q, head, heads, head_stride, latent_queries, rope_queries)
    fence_async_shared()
    token = gl.arange(0, TOKENS, layout=gl.SliceLayout(1, SCORES))
    top = gl.full([HEADS], float("-inf"), gl.float32, layout=gl.SliceLayout(0, SCORES))
    total = gl.zeros([TOKENS, HEADS], gl.float32, layout=SCORES)
    zeros = gl.zeros([GROUP, HEADS], gl.float32, layout=SUMS)
    sums = (zeros, zeros, zeros, zeros)
    number = 0
    for start in range(begin, end, TOKENS):
        picked = gl.load(slots + start + token, mask=start + token < end, other=-1)
        named = (picked >= 0) & (picked < slot_count)
        buffer = number % BUFFERS
        mbarrier.wait(full.index(buffer), (number // BUFFERS) & 1)
        top, total, sums = attend_tile(
            latents.index(buffer),
            ropes.index(buffer),
            scale_words.index(buffer),
            latent_queries,
            rope_queries,
            w0,
            w1,
            w2,
            w3,
            named,
            scale,
            top,
            total,
            sums,
            SCORES,
            RAW,
        )
        barrier()
        mbarrier.arrive(empty.index(buffer))
        number += 1
    total = gl.convert_layout(gl.sum(total, axis=0), gl.SliceLayout(0, SUMS))
    top = gl.convert_layout(top, gl.SliceLayout(0, SUMS))
    tile = outputs.index(0).slice(0, HEADS)
    if PARTS:
        finish_part(sums, top, total, tile, out, lse, place, head, heads)
    else:
        finish_row(sums, top, total, tile, sink, out, lse, place, head, heads, HAS_SINK)
