"""Positions of a row's request as slots of a pool, in Triton: what `SlotMap.slots` of `layouts/views.py` says."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pages_of_row(request, requests, pages):
    """How many pages to look at for a row: none if its request is not in the page table."""
    return tl.where((request >= 0) & (request < requests), pages, 0)


@triton.jit
def slots_of(positions, table_ptr, pages, page_tokens, slot_count):
    """Slots of positions: -1 where there is none, its page is beyond the table, or the slot not in the pool.

    Args:
        positions: int32; negative means none.
        table_ptr: the request's row of the page table.
        pages: how many it has.
        page_tokens: tokens a page.
        slot_count: how many slots the pool has, up to 2**31.
    """
    page = positions // page_tokens
    known = (positions >= 0) & (page < pages)
    slots = tl.load(table_ptr + page, mask=known, other=-1).to(tl.int64) * page_tokens + positions % page_tokens
    return tl.where(known & (slots >= 0) & (slots < slot_count), slots, -1).to(tl.int32)
