"""What a cache's requests ask of a layer's caches, and the page table that their index-K caches have in common."""

from __future__ import annotations

from typing import Protocol

import torch

from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.step import PAGE_TOKENS
from dsa_exec.layouts.views import finer_page_table


class Pool(Protocol):
    """A layer's caches, which have the requests' slots."""

    @property
    def index_page_tokens(self) -> int | None:
        """Tokens a page of its index-K cache; None if it has none yet."""

    def hold(self, slots: int) -> None:
        """Have so many slots or more, with the same tokens in those that there are."""

    def move(self, sources: torch.Tensor, targets: torch.Tensor, slots: int) -> None:
        """Copy pages to other pages, and have so many slots or more."""

    def forget(self) -> None:
        """Keep no graph of a backward pass."""


def index_page_table(pools: list[Pool], page_table: torch.Tensor) -> torch.Tensor:
    """The page table of the index-K caches, which is that of the MLA caches where pages are of one size.

    Raises:
        NotSupported: layers have index-K pages of several sizes, or pages that do not divide the MLA caches'.
    """
    sizes = sorted({it.index_page_tokens for it in pools if it.index_page_tokens is not None})
    if not sizes or sizes == [PAGE_TOKENS]:
        return page_table
    if len(sizes) > 1 or PAGE_TOKENS % sizes[0]:
        raise NotSupported(
            f"index-K caches of layers have pages of {', '.join(map(str, sizes))} tokens: one size for all layers is "
            f"supported, {PAGE_TOKENS} or a divisor"
        )
    return finer_page_table(page_table, PAGE_TOKENS // sizes[0])
