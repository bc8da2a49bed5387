"""Device functions of attention over selected rows: which indices name a row, the running softmax, parts, the sink.

Scores are in units of log2(e), so that exponentials are powers of two; log-sum-exps and sinks that a caller sees are
natural. `top` is the largest score so far, -inf before the first; `total` the sum of 2^(score - top). Whatever is NaN
among selected rows stays NaN; nothing here makes one out of a row that selects nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
"""Factor from natural units to those of the scores. Launchers fold it into the scale of the scores."""

LN_2 = tl.constexpr(0.6931471805599453)
"""Factor from the scores' units to natural ones."""


@triton.jit
def named_rows(indices, count):
    """Which indices name one of `count` rows, and their rows as int64: row 0, which is there, for the others."""
    named = (indices >= 0) & (indices < count)
    return named, tl.where(named, indices, 0).to(tl.int64)


@triton.jit
def softmax_step(scores, named, top, total):
    """Take a tile of scores [h, n] of which `named` [n] count into the running softmax of each head.

    Returns:
        Weights [h, n] relative to the new `top`, the factor [h] of what was summed before, and the new `top` and
        `total`.
    """
    scores = tl.where(named[None, :], scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    base = _finite(new_top)
    weights = tl.exp2(scores - base[:, None])
    decay = tl.exp2(top - base)
    return weights, decay, new_top, total * decay + tl.sum(weights, 1)


@triton.jit
def merge_parts(top, total, other_top, other_total):
    """Merge the softmax of one part of the keys with that of another.

    Returns:
        The factors of what either part has summed, then `top` and `total` of both.
    """
    new_top = tl.maximum(top, other_top)
    base = _finite(new_top)
    factor = tl.exp2(top - base)
    other_factor = tl.exp2(other_top - base)
    return factor, other_factor, new_top, total * factor + other_total * other_factor


@triton.jit
def finish_softmax(top, total, sink):
    """What ends a softmax: the factor that turns sums into outputs, and the natural log-sum-exp without the sink.

    Args:
        top, total: of all keys.
        sink: one more score of each head in natural units, which has no value; -inf for none.

    Returns:
        Zero and -inf where nothing was selected, whatever the sink.
    """
    nothing = total == 0.0
    some = tl.where(nothing, 1.0, total)
    denominator = some + tl.exp2(sink * LOG2_E - _finite(top))
    factor = tl.where(nothing, 0.0, 1.0 / denominator)
    lse = tl.where(nothing, float("-inf"), (top + tl.log2(some)) * LN_2)
    return factor, lse


@triton.jit
def _finite(top):
    """What to subtract from scores: 0 where there is none yet, for -inf minus -inf would be NaN."""
    return tl.where(top == float("-inf"), 0.0, top)
