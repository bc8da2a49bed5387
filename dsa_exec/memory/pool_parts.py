"""How one pool is made from its layout and the number of its entries."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.paging import pages_for
from dsa_exec.memory.pool import Pool, PoolLayout

EXTRA_PAGES = 1
"""Pages of every pool that are never given out: padded rows of a batch are written there."""


def pool_of(
    name: str,
    holds: str,
    layout: PoolLayout,
    *,
    layers: Sequence[int],
    entries: int,
    entries_per_token: Fraction,
    extra_pages: int = EXTRA_PAGES,
) -> Pool:
    """A pool of whole pages that has room for its entries, and the extra pages.

    Args:
        name: what it is called.
        holds: what is in it.
        layout: what its bytes mean.
        layers: the layers that have it.
        entries: entries that it can give out.
        entries_per_token: how many of them there are for each token of context; 0 if they do not grow with tokens.
        extra_pages: pages on top.
    """
    return Pool(
        name=name,
        holds=holds,
        layers=tuple(layers),
        tokens=entries,
        page_tokens=layout.page_tokens,
        pages=pages_for(entries, layout.page_tokens) + extra_pages,
        extra_pages=extra_pages,
        entry_bytes=layout.token_bytes,
        page_bytes=page_bytes_of(layout),
        entries_per_token=entries_per_token,
        layout=layout,
    )


def page_bytes_of(layout: PoolLayout) -> int:
    """Bytes of one page, padding included. An MLA cache's tokens follow each other without any."""
    return layout.page_tokens * layout.token_bytes if isinstance(layout, MlaLayout) else layout.page_bytes
