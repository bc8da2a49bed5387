"""The MLA cache: one latent vector and one RoPE part a token, shared by all heads.

A token of the fp8 format, as flash_mla reads it:

    byte 0                512                      528                656
    | 512 e4m3 latent     | 4 f32 scales, one per  | 64 bf16 RoPE     |
    |                     | 128 latent channels    |                  |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsa_exec.core.errors import LayoutError

GROUP = 128
"""Latent channels that share a scale."""


@dataclass(frozen=True, slots=True)
class MlaLayout:
    """How an MLA cache lays out a token. Travels with the cache.

    Attributes:
        format: `fp8` (e4m3 latent, f32 scales, bf16 RoPE part) or `model` (the model's dtype throughout).
        page_tokens: tokens a page.
        latent_dim: channels of the latent (kv_lora_rank).
        rope_dim: channels of the RoPE part (qk_rope_head_dim).
        element_bytes: bytes a channel that is not quantised: 2 in the fp8 format, those of the model's dtype in the
            model format.
    """

    format: Literal["fp8", "model"] = "fp8"
    page_tokens: int = 64
    latent_dim: int = 512
    rope_dim: int = 64
    element_bytes: int = 2

    def __post_init__(self) -> None:
        if self.format not in ("fp8", "model"):
            raise LayoutError("MLA cache", "format", repr(self.format), "'fp8' or 'model'")
        if self.page_tokens < 1:
            raise LayoutError("MLA cache", "page size", self.page_tokens, "at least 1 token")
        if self.format == "fp8" and self.element_bytes != 2:
            raise LayoutError("MLA cache", "element_bytes", self.element_bytes, "2, a bf16, in the fp8 format")
        if self.format == "fp8" and self.rope_dim % 2:
            wanted = "an even number of channels in the fp8 format (kv_format=model takes any number)"
            raise LayoutError("MLA cache", "qk_rope_head_dim", self.rope_dim, wanted)
        if self.format == "fp8" and self.latent_dim % GROUP:
            wanted = f"a multiple of {GROUP} channels in the fp8 format (kv_format=model takes any number)"
            raise LayoutError("MLA cache", "kv_lora_rank", self.latent_dim, wanted)

    @property
    def spec(self) -> str:
        """The layout as one word, for a node of a graph that takes no objects: `fp8/64/512/64/2`."""
        return f"{self.format}/{self.page_tokens}/{self.latent_dim}/{self.rope_dim}/{self.element_bytes}"

    @classmethod
    def of_spec(cls, spec: str) -> MlaLayout:
        """The layout that `spec` is of."""
        format, *numbers = spec.split("/")
        return cls(format, *map(int, numbers))  # type: ignore[arg-type]

    @property
    def width(self) -> int:
        """Channels of a token: latent, then RoPE part."""
        return self.latent_dim + self.rope_dim

    @property
    def scales_offset_bytes(self) -> int:
        """Where in its token the scales begin (fp8)."""
        return self.latent_dim

    @property
    def rope_offset_bytes(self) -> int:
        """Where in its token the RoPE part begins (fp8)."""
        return self.latent_dim + self.latent_dim // GROUP * 4

    @property
    def token_bytes(self) -> int:
        """Bytes of one token."""
        if self.format == "model":
            return self.width * self.element_bytes
        return self.rope_offset_bytes + self.rope_dim * 2


assert MlaLayout().token_bytes == 512 + 4 * 4 + 64 * 2 == 656
assert MlaLayout(format="model").token_bytes == 1152
