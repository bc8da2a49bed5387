"""What the rows of a step need to know of their requests, as tensors that a captured graph can keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class StepMetadata:
    """The rows of one decode or speculative step: n rows a request, in the order of requests.

    The last three are there where it was said how many positions a row selects (`index_topk`), else None.

    Attributes:
        cache_lens: int32 [b], tokens of each request that are in the cache when the rows run.
        context_lens: int32 [b, n], tokens that each row sees, itself included.
        request_of_row: int32 [b * n], which request each row belongs to.
        page_table: int32 [b * n, pages], the pages of each row's request, or None where nobody asked for them.
        dsa_cache_lens: int32 [b * n], how many positions each row selects: all that it sees, at most `index_topk`.
        cu_cache_lens: int32 [b + 1], the sums of `cache_lens` before each request, and of all.
        cu_dsa_cache_lens: int32 [b * n + 1], the sums of `dsa_cache_lens` before each row, and of all.
    """

    cache_lens: torch.Tensor
    context_lens: torch.Tensor
    request_of_row: torch.Tensor
    page_table: torch.Tensor | None = None
    dsa_cache_lens: torch.Tensor | None = None
    cu_cache_lens: torch.Tensor | None = None
    cu_dsa_cache_lens: torch.Tensor | None = None

    @classmethod
    def allocate(
        cls, b: int, n: int, device: torch.device | str, pages: int | None = None, *, selects: bool = False
    ) -> StepMetadata:
        """Room for the rows of b requests, not filled.

        Args:
            b: how many requests.
            n: rows a request.
            device: where.
            pages: columns of the page table; None for none.
            selects: with what follows from `index_topk`.
        """

        def room(*shape: int) -> torch.Tensor:
            return torch.empty(shape, dtype=torch.int32, device=device)

        table = None if pages is None else room(b * n, pages)
        selected = (room(b * n), room(b + 1), room(b * n + 1)) if selects else (None, None, None)
        return cls(room(b), room(b, n), room(b * n), table, *selected)

    @property
    def row_lens(self) -> torch.Tensor:
        """`context_lens` row by row: int32 [b * n], the same memory (a copy if its rows are apart)."""
        return self.context_lens.flatten()
