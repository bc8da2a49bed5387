"""The index-K cache object."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dsa_config import settings
from dsa_exec.caches.allocation import INDEX_K_SETTINGS, Allocation, allocated
from dsa_exec.caches.fit import require_fit, require_room
from dsa_exec.caches.index_k_pages import Order, PageDecision, pages_for_allocation
from dsa_exec.core.checks import FLOAT_DTYPES
from dsa_exec.core.fnuz import reads_fnuz
from dsa_exec.core.hardware import capabilities
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.interned import interned
from dsa_exec.layouts.paging import pages_for


@dataclass(frozen=True, slots=True)
class IndexKCache:
    """Index keys of a pool of slots, for one layer.

    Attributes:
        data: uint8 [pages, page_bytes] in the fp8 format, [pages, page_tokens, head_dim] of the model's dtype in the
            model format.
        layout: what the bytes mean.
        decision: why its pages are as they are; None for a cache that was made without `allocate`.
        allocation: as what it was told of to the settings; None likewise.
    """

    data: torch.Tensor
    layout: IndexKLayout
    decision: PageDecision | None = field(default=None, compare=False)
    allocation: Allocation | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not torch.compiler.is_compiling():
            object.__setattr__(self, "layout", interned(self.layout))  # the class is frozen
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
        page_tokens: int | None = None,
        order: Order | None = None,
        pow2_scale: bool = False,
        hadamard: bool = False,
    ) -> IndexKCache:
        """A zeroed cache in the format that `index_k_format` says now, in the pages that the device's kernels take.

        On ROCm these are preshuffled pages of 64 if aiter's kernel for them can run, by the hardware and the settings
        as they are now (`core/preshuffle.py`), and else plain pages of 1, which is logged; on CUDA plain pages of 64.

        Args:
            slots: how many tokens it must hold; rounded up to whole pages.
            device: where.
            model_dtype: what the model format keeps keys in.
            head_dim: channels a key.
            page_tokens: tokens a page, in the place of the decision: in the fp8 format a multiple of 16 for
                preshuffled pages, 1 for plain ones on ROCm, 64 on CUDA; elsewhere, and in the model format, any.
            order: `plain`, or `preshuffled` for aiter's matrix instructions (fp8 format), in the place of the decision.
            pow2_scale: round scales up to powers of two (fp8 format).
            hadamard: rotate keys before quantising them (fp8 format).

        Raises:
            RangeError: no slot, or no token a page.
            LayoutError: the format cannot hold such keys, or no kernel of the device takes such pages.
        """
        require_room("IndexKCache.allocate", slots, page_tokens)
        hw, format = capabilities(torch.device(device)), settings.index_k_format
        decision = pages_for_allocation(format, hw, page_tokens, order)
        pages = pages_for(slots, decision.page_tokens)
        page = decision.page_tokens, head_dim, decision.order
        if format == "model":
            layout = IndexKLayout("model", *page, element_bytes=model_dtype.itemsize)
            data = torch.zeros(pages, decision.page_tokens, head_dim, dtype=model_dtype, device=device)
        else:
            zeros = hw.is_hip and reads_fnuz(hw.arch)
            layout = IndexKLayout("fp8", *page, pow2_scale=pow2_scale, hadamard=hadamard, unsigned_zero=zeros)
            data = torch.zeros(pages, layout.page_bytes, dtype=torch.uint8, device=device)
        slots = pages * decision.page_tokens
        allocation = allocated(f"an index-K cache of {slots} slots was allocated", INDEX_K_SETTINGS)
        return cls(data, layout, decision, allocation)

    @property
    def slots(self) -> int:
        """How many tokens the cache holds."""
        return self.data.shape[0] * self.layout.page_tokens
