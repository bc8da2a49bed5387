"""Puts what a vendor's paged kernel left into the state that the op promises, in one launch.

Such a kernel scores whatever page it is given, and leaves cells beyond a row's length undefined. Here keys on pages
that the cache does not have get -inf, and so does what a row does not see, if wanted; nothing else is touched. Where
the caller gave a tensor to write into, the logits are copied to it on the way.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.ops.paged_mqa_logits import Call

COLUMNS = 1024
"""Columns of a program."""


@triton.jit(do_not_specialize=["next_n", "table_width", "cache_pages", "width", "spans", "lens_stride", "table_stride"])
def settle_kernel(
    source,
    target,
    context_lens,
    page_table,
    next_n,
    table_width,
    cache_pages,
    width,
    spans,
    source_stride,
    target_stride,
    lens_stride,
    table_stride,
    PAGE: tl.constexpr,
    CLEAN: tl.constexpr,
    COPY: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A span of a row."""
    span = tl.program_id(0) % spans
    row = (tl.program_id(0) // spans).to(tl.int64)
    request = row // next_n
    seen_here = tl.load(context_lens + request * lens_stride + row % next_n)
    column = span * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    seen = inside & (column < seen_here)
    page = tl.load(
        page_table + request * table_stride + column // PAGE, mask=seen & (column // PAGE < table_width), other=-1
    )
    known = seen & (page >= 0) & (page < cache_pages)
    wanted = inside if CLEAN else seen
    if COPY:
        value = tl.load(source + row * source_stride + column, mask=known, other=float("-inf"))
        tl.store(target + row * target_stride + column, value, mask=wanted)
    else:
        nothing = tl.full([COLUMNS], float("-inf"), tl.float32)
        tl.store(target + row * target_stride + column, nothing, mask=wanted & ~known)


def settle(call: Call, logits: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """Launch the kernel for a call that has rows and columns.

    Args:
        call: the call.
        logits: f32 [b * n, max_context_len], what the vendor computed.
        out: where to, of the same shape; None to leave them where they are.

    Returns:
        `out`, or `logits`.
    """
    requests, next_n = call.context_lens.shape
    width = call.max_context_len
    spans = triton.cdiv(width, COLUMNS)
    target = logits if out is None else out
    settle_kernel[(requests * next_n * spans,)](
        logits,
        target,
        call.context_lens,
        call.page_table,
        next_n,
        call.page_table.shape[1],
        call.cache.data.shape[0],
        width,
        spans,
        logits.stride(0),
        target.stride(0),
        call.context_lens.stride(0),
        call.page_table.stride(0),
        PAGE=call.cache.layout.page_tokens,
        CLEAN=call.clean,
        COPY=out is not None,
        COLUMNS=COLUMNS,
        num_warps=4,
    )
    return target
