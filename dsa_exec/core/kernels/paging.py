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
    first_row,
    row_count,
    requests,
    pages,
    slot_count,
    PAGE_TOKENS: tl.constexpr,
    TOKENS: tl.constexpr,
    LENS: tl.constexpr,
):
    """The slots of some rows that follow each other, where rows are the tokens of all requests, one after the other.

    Args:
        page_table_ptr: int32 [requests, pages], `table_stride` apart.
        table_stride: elements from one request's pages to the next one's.
        seq_lens_ptr: int [requests]. Less than 0 counts as 0.
        first_row: the first of the rows, int32.
        row_count: how many rows there are in all.
        requests: how many requests.
        pages: columns of the page table.
        slot_count: how many slots the cache has.
        PAGE_TOKENS: tokens a page.
        TOKENS: how many slots are wanted.
        LENS: lengths that are added up at once, a power of two.

    Returns:
        slots int64 [TOKENS], and whether each is known: tokens beyond the page table, on pages that the cache does not
        have, and rows that no request has are not; their slot is 0.
    """
    # The request of the first row: as many as end before it. What ends beyond the last row is taken to end there, so
    # that int32 is enough.
    request = 0
    start = 0
    before = tl.zeros((), tl.int64)
    for at in range(0, requests, LENS):
        here = at + tl.arange(0, LENS)
        lens = tl.load(seq_lens_ptr + here, mask=here < requests, other=0).to(tl.int64)
        ends = before + tl.cumsum(tl.maximum(lens, 0), 0)
        before = tl.max(ends, 0)
        ends = tl.where(here < requests, tl.minimum(ends, row_count), row_count).to(tl.int32)
        is_before = ends <= first_row
        request += tl.sum(is_before.to(tl.int32), 0)
        start = tl.maximum(start, tl.max(tl.where(is_before, ends, 0), 0))

    # The other rows are of that request or of those that follow it.
    rows = first_row + tl.arange(0, TOKENS)
    last_row = tl.minimum(first_row + TOKENS, row_count) - 1
    request_of_row = tl.full((TOKENS,), 0, tl.int32) + request
    start_of_row = tl.full((TOKENS,), 0, tl.int32) + start
    end = _end(seq_lens_ptr, request, requests, start, row_count)
    while (end <= last_row) & (request < requests):
        request += 1
        request_of_row = tl.where(rows >= end, request, request_of_row)
        start_of_row = tl.where(rows >= end, end, start_of_row)
        end = _end(seq_lens_ptr, request, requests, end, row_count)

    position = rows - start_of_row
    page = position // PAGE_TOKENS
    known = (rows < row_count) & (request_of_row < requests) & (page < pages)
    at = page_table_ptr + request_of_row.to(tl.int64) * table_stride + page
    slots = tl.load(at, mask=known, other=-1).to(tl.int64) * PAGE_TOKENS + position % PAGE_TOKENS
    known = known & (slots >= 0) & (slots < slot_count)
    return tl.where(known, slots, 0), known


@triton.jit
def _end(seq_lens_ptr, request, requests, start, row_count):
    """Where a request that begins at `start` ends: at the last row at most."""
    length = tl.load(seq_lens_ptr + request, mask=request < requests, other=0).to(tl.int64)
    return tl.minimum(start + tl.maximum(length, 0), row_count).to(tl.int32)


@triton.jit
def store_rounded(pointers, values, mask):
    """Store f32 values to f32, or to the bits (int16) of bf16 or f16."""
    if pointers.dtype.element_ty == tl.bfloat16:
        tl.store(pointers.to(tl.pointer_type(tl.int16), bitcast=True), bf16_codes(values), mask=mask)
    elif pointers.dtype.element_ty == tl.float16:
        tl.store(pointers.to(tl.pointer_type(tl.int16), bitcast=True), f16_codes(values), mask=mask)
    else:
        tl.store(pointers, values, mask=mask)
