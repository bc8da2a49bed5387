"""Kernels around a vendor's sparse attention: indices as it takes them, and rows that select nothing as we do."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

HEADS = 8
"""Heads that are copied at a time: 8 KiB of bf16."""


@triton.jit
def _name_kernel(indices, named, selects, stride, count, k, width, BLOCK: tl.constexpr):
    """One row: what names none of `count` rows becomes -1, and so do the columns from `k` on."""
    row = tl.program_id(0).to(tl.int64)
    names_any = 0
    for first in range(0, width, BLOCK):
        column = first + tl.arange(0, BLOCK)
        index = tl.load(indices + row * stride + column, mask=column < k, other=-1)
        is_named = (index >= 0) & (index < count)
        tl.store(named + row * width + column, tl.where(is_named, index, -1), mask=column < width)
        names_any = tl.maximum(names_any, tl.max(is_named.to(tl.int32), 0))
    tl.store(selects + row, names_any.to(tl.int8))


@triton.jit
def _copy_kernel(
    out,
    lse,
    selects,
    to_out,
    to_lse,
    row_stride,
    lse_row_stride,
    lse_head_stride,
    to_row_stride,
    to_lse_row_stride,
    heads,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Some heads of a row, copied; zeros and -inf if the row selects nothing, of which nothing is read then."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    is_read = head < tl.where(tl.load(selects + row) != 0, heads, 0)
    is_written = head < heads
    at = head[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    values = tl.load(out + row * row_stride + at, mask=is_read[:, None], other=0)
    tl.store(to_out + row * to_row_stride + at, values, mask=is_written[:, None])
    sums = tl.load(lse + row * lse_row_stride + head * lse_head_stride, mask=is_read, other=float("-inf"))
    tl.store(to_lse + row * to_lse_row_stride + head, sums, mask=is_written)


@triton.jit
def _clear_kernel(
    out, lse, selects, row_stride, lse_row_stride, lse_head_stride, heads, HEADS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Zeros and -inf for all heads of a row, if it selects nothing."""
    row = tl.program_id(0).to(tl.int64)
    if tl.load(selects + row) == 0:
        for first in range(0, heads, HEADS):
            head = first + tl.arange(0, HEADS)
            at = head[:, None] * CHANNELS + tl.arange(0, CHANNELS)[None, :]
            nothing = tl.zeros((HEADS, CHANNELS), out.dtype.element_ty)
            tl.store(out + row * row_stride + at, nothing, mask=(head < heads)[:, None])
            none = tl.full((HEADS,), float("-inf"), tl.float32)
            tl.store(lse + row * lse_row_stride + head * lse_head_stride, none, mask=head < heads)


def name_rows(indices: torch.Tensor, count: int, multiple: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices [t, k] as [t, a multiple], -1 for what names none of `count` rows; and int8 [t], which rows name any."""
    rows, k = indices.shape
    width = -(-k // multiple) * multiple
    named = indices.new_empty(rows, width)
    selects = indices.new_empty(rows, dtype=torch.int8)
    block = min(1024, triton.next_power_of_2(width))
    _name_kernel[(rows,)](indices, named, selects, indices.stride(0), count, k, width, BLOCK=block)
    return named, selects


def copy_rows(
    out: torch.Tensor, lse: torch.Tensor, selects: torch.Tensor, to_out: torch.Tensor, to_lse: torch.Tensor
) -> None:
    """The first heads of a result, of which `to_out` has as many as there are to copy."""
    rows, heads, channels = to_out.shape
    _copy_kernel[(rows, -(-heads // HEADS))](
        out.view(torch.int16),
        lse,
        selects,
        to_out.view(torch.int16),
        to_lse,
        out.stride(0),
        *lse.stride(),
        to_out.stride(0),
        to_lse.stride(0),
        heads,
        HEADS=HEADS,
        CHANNELS=channels,
    )


def clear_rows(out: torch.Tensor, lse: torch.Tensor, selects: torch.Tensor) -> None:
    """Write zeros and -inf where rows select nothing."""
    rows, heads, channels = out.shape
    strides = out.stride(0), *lse.stride()
    _clear_kernel[(rows,)](out.view(torch.int16), lse, selects, *strides, heads, HEADS=HEADS, CHANNELS=channels)
