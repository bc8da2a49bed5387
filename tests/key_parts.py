"""Keys of some requests, whole and dealt to parts, for tests of context parallelism."""

from __future__ import annotations

import torch

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.views import index_key_view, index_scale_view

HEADS = 4


def keys_of(lens, *, tied):
    """Keys and scales of some requests, one after the other; tied ones are of few kinds, so that scores repeat."""
    generator = torch.Generator().manual_seed(sum(lens))
    kinds = torch.randn(5 if tied else sum(lens), 128, generator=generator).to(E4M3)
    of = torch.randint(len(kinds), (sum(lens),), generator=generator) if tied else torch.arange(sum(lens))
    return kinds.view(torch.uint8)[of].view(E4M3), (0.5 + of % 3)


def queries(rows):
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, HEADS, 128, generator=generator).to(E4M3), torch.randn(rows, HEADS, generator=generator)


def in_part(split, part, lens):
    """Which of the keys of requests, one after the other, a part has."""
    mine = [
        split.of_rows(slice(nth, nth + 1)).part_of(torch.arange(it)[None])[0] == part for nth, it in enumerate(lens)
    ]
    return torch.cat(mine)


def cached(keys, scales, lens):
    """A cache that has the keys of some requests on pages in a mixed order, and its page table."""
    layout = IndexKLayout(page_tokens=16)
    pages = -(-max(*lens, 1) // 16)
    table = (
        torch.randperm(pages * len(lens), generator=torch.Generator().manual_seed(0)).reshape(len(lens), pages).int()
    )
    cache = IndexKCache(torch.zeros(pages * len(lens), layout.page_bytes, dtype=torch.uint8), layout)
    at = 0
    for request, length in enumerate(lens):
        for position in range(length):
            page = int(table[request, position // 16])
            index_key_view(cache.data, layout).view(torch.uint8)[page, position % 16] = keys.view(torch.uint8)[at]
            index_scale_view(cache.data, layout)[page, position % 16] = scales[at]
            at += 1
    return cache, table
