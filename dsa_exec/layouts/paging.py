"""Pages: a slot is a place in a pool, a page is a run of slots that a page table maps at once.

Plain Python integers, which do not overflow. Kernels do the same arithmetic in int64: in int32 the byte address of an
index-K token overflows within page 254,200.
"""

from __future__ import annotations


def pages_for(slots: int, page_tokens: int) -> int:
    """How many pages hold that many slots."""
    return -(-slots // page_tokens)


def page_and_offset(slot: int, page_tokens: int) -> tuple[int, int]:
    """The page of a slot, and its place in the page."""
    return divmod(slot, page_tokens)
