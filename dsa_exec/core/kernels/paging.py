"""Slots in kernels: which rows write where, and which slots the tokens of requests are in. All of it in int64."""

from __future__ import annotations

import triton
import triton.language as tl

from dsa_exec.core.kernels.quantise import bf16_codes, f16_codes


@triton.jit
def slots_to_write(slots_ptr, rows, row_count, slot_count):
    """The slot of each row, and whether it has one: rows beyond the last and slots beyond the cache have none."""
    slots = tl.load(slots_ptr + rows, mask=rows < row_count, other=-1).to(tl.int64)
    has_slot = (slots >= 0) & (slots < slot_count)
    return tl.where(has_slot, slots, 0), has_slot


@triton.jit
def request_slots(
    page_table_ptr,
    table_stride,
    seq_lens_ptr,
    rows,
    row_count,
    requests,
    pages,
    slot_count,
    PAGE_TOKENS: tl.constexpr,
    LENS: tl.constexpr,
):
    """The slot of each of some rows, where rows are the tokens of all requests, one request after the other.

    Args:
        page_table_ptr: int32 [requests, pages], `table_stride` apart.
        table_stride: elements from one request's pages to the next one's.
        seq_lens_ptr: int [requests]. Less than 0 counts as 0.
        rows: int32 [n].
        row_count: how many rows there are in all.
        requests: how many requests.
        pages: columns of the page table.
        slot_count: how many slots the cache has.
        PAGE_TOKENS: tokens a page.
        LENS: lengths that are added up at once, a power of two.

    Returns:
        slots int64 [n], and whether each is known: tokens beyond the page table, on pages that the cache does not have,
        and rows that no request has are not; their slot is 0.
    """
    request = tl.zeros_like(rows)
    start = tl.zeros_like(rows)
    before = tl.zeros((), tl.int64)
    for first in range(0, requests, LENS):
        here = first + tl.arange(0, LENS)
        lens = tl.load(seq_lens_ptr + here, mask=here < requests, other=0).to(tl.int64)
        ends = before + tl.cumsum(tl.maximum(lens, 0), 0)
        before = tl.max(ends, 0)
        # What ends beyond the last row ends there, so that int32 is enough.
        ends = tl.where(here < requests, tl.minimum(ends, row_count), row_count).to(tl.int32)
        is_before = ends[None, :] <= rows[:, None]
        request += tl.sum(is_before.to(tl.int32), 1)
        start = tl.maximum(start, tl.max(tl.where(is_before, ends[None, :], 0), 1))
    position = rows - start
    page = position // PAGE_TOKENS
    known = (rows < row_count) & (request < requests) & (page < pages)
    at = page_table_ptr + request.to(tl.int64) * table_stride + page
    slots = tl.load(at, mask=known, other=-1).to(tl.int64) * PAGE_TOKENS + position % PAGE_TOKENS
    known = known & (slots >= 0) & (slots < slot_count)
    return tl.where(known, slots, 0), known


@triton.jit
def store_rounded(pointers, values, mask):
    """Store f32 values to f32, or to the bits (int16) of bf16 or f16."""
    if pointers.dtype.element_ty == tl.bfloat16:
        tl.store(pointers.to(tl.pointer_type(tl.int16), bitcast=True), bf16_codes(values), mask=mask)
    elif pointers.dtype.element_ty == tl.float16:
        tl.store(pointers.to(tl.pointer_type(tl.int16), bitcast=True), f16_codes(values), mask=mask)
    else:
        tl.store(pointers, values, mask=mask)
