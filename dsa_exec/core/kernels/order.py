"""Scores as unsigned integers in the same order, in Triton: what every selection compares."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def ordered_keys(scores):
    """uint32 keys in the order of f32 scores, none of them 0. NaN counts as -inf, and -0.0 as 0.0."""
    scores = tl.where(scores == scores, scores, float("-inf")) + 0.0  # -0.0 becomes 0.0
    bits = scores.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(tl.uint32, bitcast=True)
