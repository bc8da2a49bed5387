"""How many pages a growing cache gets when it needs some."""

from __future__ import annotations

from dsa_exec.integrations.transformers.step import PAGE_TOKENS
from dsa_exec.layouts.paging import pages_for

LEAST_GROWTH_PAGES = 4
GROWTH_SHARE = 8
"""A growing cache gets room for an eighth more than it needs, so that tokens are seldom copied."""


def pages_with_reserve(tokens: int) -> int:
    """Pages of a request that has so many tokens."""
    pages = pages_for(tokens, PAGE_TOKENS)
    return pages + max(pages // GROWTH_SHARE, LEAST_GROWTH_PAGES)
