"""Indexer scores of a tile of keys, in Triton, for kernels that hold some query rows and go over keys.

Keys are the rows of a matrix product and (query row, head) its columns, so that the sum over heads stays within a row
of the product.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dsa_exec.core.kernels.operands import operand

NAN_STAYS = tl.constexpr(tl.PropagateNan.ALL)


@triton.jit
def load_part(rows, inside, part, CHANNELS: tl.constexpr, PART: tl.constexpr, TILED: tl.constexpr, AS: tl.constexpr):
    """One part of the channels of vectors that begin at `rows`: [rows, PART], zeros beyond them and their channels.

    Args:
        rows: pointers to the vectors.
        inside: which of them there are.
        part: number of the part.
        CHANNELS: of a vector.
        PART: channels of a part.
        TILED: the side of a tile of preshuffled keys, 0 for vectors that lie in one run.
        AS: as of `operand`.
    """
    channel = part * PART + tl.arange(0, PART)
    mask = inside[:, None]
    if CHANNELS % PART:
        mask = mask & (channel < CHANNELS)[None, :]
    offset = channel if TILED == 0 else channel // TILED * (TILED * TILED) + channel % TILED
    return operand(tl.load(rows[:, None] + offset[None, :], mask=mask, other=0.0), AS)


@triton.jit
def tile_scores(
    key_rows,
    known,
    queries,
    vectors,
    real,
    weights,
    head,
    HEADS: tl.constexpr,
    PADDED_HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    ROWS: tl.constexpr,
    PART: tl.constexpr,
    TILE: tl.constexpr,
    TILED: tl.constexpr,
    STAGES: tl.constexpr,
    AS: tl.constexpr,
):
    """Sums over heads of weight * relu(product), [TILE keys, ROWS query rows], without the keys' scales.

    Args:
        key_rows: [TILE] pointers to the keys.
        known: [TILE], which of them there are.
        queries: [columns, PART] if that is all channels, else anything.
        vectors: [columns] pointers to the queries' vectors; columns are query rows times PADDED_HEADS.
        real: [columns], which of them there are.
        weights: [columns], f32.
        head: [columns], the head of each.
        HEADS, PADDED_HEADS: heads, and the power of two that a query row takes of the columns.
        CHANNELS, PART, TILED, AS: as of `load_part`, for keys.
        ROWS, TILE: of the result.
        STAGES: parts of the channels that are loaded ahead.
    """
    PARTS: tl.constexpr = (CHANNELS + PART - 1) // PART
    if PARTS == 1:
        tile = load_part(key_rows, known, 0, CHANNELS, PART, TILED, AS)
        product = tl.dot(tile, tl.trans(queries), input_precision="ieee")
    else:
        product = tl.zeros([TILE, ROWS * PADDED_HEADS], tl.float32)
        for part in tl.range(0, PARTS, num_stages=STAGES):
            tile = load_part(key_rows, known, part, CHANNELS, PART, TILED, AS)
            some = load_part(vectors, real, part, CHANNELS, PART, 0, AS)
            product = tl.dot(tile, tl.trans(some), product, input_precision="ieee")
    weighted = tl.maximum(product, 0.0, propagate_nan=NAN_STAYS) * weights[None, :]
    if PADDED_HEADS != HEADS:
        weighted = tl.where((head < HEADS)[None, :], weighted, 0.0)  # an infinite key times zero is NaN
    return tl.sum(tl.reshape(weighted, [TILE, ROWS, PADDED_HEADS]), axis=2)
