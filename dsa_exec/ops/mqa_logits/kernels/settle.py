"""Puts what a vendor's ragged kernel left into the state that the op promises, in one launch.

Such a kernel leaves cells outside a row's window undefined, and may write a row from its first visible key on. Here
each logit comes to its key's column, what a row does not see becomes -inf, if wanted, and nothing else is touched.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

COLUMNS = 1024
"""Columns of a program."""


@triton.jit(do_not_specialize=["width", "spans"])
def settle_kernel(
    source,
    target,
    starts,
    ends,
    width,
    spans,
    source_stride,
    target_stride,
    CLEAN: tl.constexpr,
    COPY: tl.constexpr,
    SHIFTED: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A span of a row, whose window lies within the keys."""
    span = tl.program_id(0) % spans
    row = (tl.program_id(0) // spans).to(tl.int64)
    start = tl.load(starts + row)
    column = span * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    seen = (column >= start) & (column < tl.load(ends + row))
    if COPY:
        place = column - start if SHIFTED else column
        value = tl.load(source + row * source_stride + place, mask=seen, other=float("-inf"))
        tl.store(target + row * target_stride + column, value, mask=inside if CLEAN else seen)
    elif CLEAN:
        nothing = tl.full([COLUMNS], float("-inf"), tl.float32)
        tl.store(target + row * target_stride + column, nothing, mask=inside & ~seen)


def settle(
    logits: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    out: torch.Tensor | None,
    *,
    clean: bool,
    shifted: bool = False,
) -> torch.Tensor:
    """Launch the kernel for logits that have rows and columns.

    Args:
        logits: f32 [t, s], what the vendor computed.
        starts: int32 [t], the first key visible to each row; 0 to s.
        ends: int32 [t], one past the last; the start to s.
        out: where to, of the same shape; None to leave them where they are.
        clean: write -inf where a row sees nothing.
        shifted: column 0 of each row of `logits` is the row's first visible key; with `out` only.

    Returns:
        `out`, or `logits`.
    """
    rows, width = logits.shape
    target = logits if out is None else out
    if out is None and not clean:
        return target
    spans = triton.cdiv(width, COLUMNS)
    settle_kernel[(rows * spans,)](
        logits,
        target,
        starts,
        ends,
        width,
        spans,
        logits.stride(0),
        target.stride(0),
        CLEAN=clean,
        COPY=out is not None,
        SHIFTED=shifted,
        COLUMNS=COLUMNS,
        num_warps=4,
    )
    return target
