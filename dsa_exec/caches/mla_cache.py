"""The MLA cache object."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dsa_config import settings
from dsa_exec.caches.allocation import MLA_SETTINGS, Allocation, allocated
from dsa_exec.caches.fit import require_fit, require_room
from dsa_exec.core.checks import FLOAT_DTYPES
from dsa_exec.layouts.interned import interned
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.layouts.paging import pages_for


@dataclass(frozen=True, slots=True)
class MlaCache:
    """Latents and RoPE parts of a pool of slots, for one layer.

    Attributes:
        data: uint8 [slots, token_bytes] in the fp8 format, [slots, latent_dim + rope_dim] of the model's dtype in the
            model format. Slots of a page follow each other, so that the same bytes are [pages, page_tokens, ...].
        layout: what the bytes mean.
        allocation: as what it was told of to the settings; None for a cache that was made without `allocate`.
    """

    data: torch.Tensor
    layout: MlaLayout
    allocation: Allocation | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not torch.compiler.is_compiling():
            object.__setattr__(self, "layout", interned(self.layout))  # the class is frozen
        layout, pages = self.layout, {"multiple": self.layout.page_tokens}
        if layout.format == "fp8":
            require_fit("MLA cache", self.data, (layout.token_bytes,), (torch.uint8,), **pages)
        else:
            row, element_bytes = (layout.width,), layout.element_bytes
            require_fit("MLA cache", self.data, row, FLOAT_DTYPES, element_bytes=element_bytes, **pages)

    @classmethod
    def allocate(
        cls,
        slots: int,
        *,
        device: torch.device | str,
        model_dtype: torch.dtype,
        latent_dim: int = 512,
        rope_dim: int = 64,
        page_tokens: int = 64,
    ) -> MlaCache:
        """A zeroed cache in the format that `kv_format` says now.

        Args:
            slots: how many tokens it must hold; rounded up to whole pages.
            device: where.
            model_dtype: what the model format keeps tokens in.
            latent_dim: channels of the latent (kv_lora_rank).
            rope_dim: channels of the RoPE part (qk_rope_head_dim).
            page_tokens: tokens a page.

        Raises:
            RangeError: no slot, or no token a page.
            LayoutError: the format cannot hold such tokens.
        """
        require_room("MlaCache.allocate", slots, page_tokens)
        rounded = pages_for(slots, page_tokens) * page_tokens
        if settings.kv_format == "model":
            layout = MlaLayout("model", page_tokens, latent_dim, rope_dim, element_bytes=model_dtype.itemsize)
            data = torch.zeros(rounded, layout.width, dtype=model_dtype, device=device)
        else:
            layout = MlaLayout("fp8", page_tokens, latent_dim, rope_dim)
            data = torch.zeros(rounded, layout.token_bytes, dtype=torch.uint8, device=device)
        allocation = allocated(f"an MLA cache of {rounded} slots was allocated", MLA_SETTINGS)
        return cls(data, layout, allocation)

    @property
    def slots(self) -> int:
        """How many tokens the cache holds."""
        return self.data.shape[0]
