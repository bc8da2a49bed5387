"""The index-K cache object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from dsa_config import settings
from dsa_exec.caches.fit import require_fit, require_room
from dsa_exec.core.checks import FLOAT_DTYPES
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.paging import pages_for


@dataclass(frozen=True, slots=True)
class IndexKCache:
    """Index keys of a pool of slots, for one layer.

    Attributes:
        data: uint8 [pages, page_bytes] in the fp8 format, [pages, page_tokens, head_dim] of the model's dtype in the
            model format.
        layout: what the bytes mean.
    """

    data: torch.Tensor
    layout: IndexKLayout

    def __post_init__(self) -> None:
        if self.layout.format == "fp8":
            require_fit("index-K cache", self.data, (self.layout.page_bytes,), (torch.uint8,))
        else:
            row = (self.layout.page_tokens, self.layout.head_dim)
            require_fit("index-K cache", self.data, row, FLOAT_DTYPES, element_bytes=self.layout.element_bytes)

    @classmethod
    def allocate(
        cls,
        slots: int,
        *,
        device: torch.device | str,
        model_dtype: torch.dtype,
        head_dim: int = 128,
        page_tokens: int = 64,
        order: Literal["plain", "preshuffled"] = "plain",
        pow2_scale: bool = False,
        hadamard: bool = False,
    ) -> IndexKCache:
        """A zeroed cache in the format that `index_k_format` says now.

        Args:
            slots: how many tokens it must hold; rounded up to whole pages.
            device: where.
            model_dtype: what the model format keeps keys in.
            head_dim: channels a key.
            page_tokens: tokens a page.
            order: `preshuffled` for aiter's matrix instructions (fp8 format).
            pow2_scale: round scales up to powers of two (fp8 format).
            hadamard: rotate keys before quantising them (fp8 format).

        Raises:
            RangeError: no slot, or no token a page.
            LayoutError: the format cannot hold such keys.
        """
        require_room("IndexKCache.allocate", slots, page_tokens)
        pages = pages_for(slots, page_tokens)
        if settings.index_k_format == "model":
            layout = IndexKLayout("model", page_tokens, head_dim, element_bytes=model_dtype.itemsize)
            return cls(torch.zeros(pages, page_tokens, head_dim, dtype=model_dtype, device=device), layout)
        layout = IndexKLayout("fp8", page_tokens, head_dim, order, pow2_scale=pow2_scale, hadamard=hadamard)
        return cls(torch.zeros(pages, layout.page_bytes, dtype=torch.uint8, device=device), layout)

    @property
    def slots(self) -> int:
        """How many tokens the cache holds."""
        return self.data.shape[0] * self.layout.page_tokens
