"""The index-K cache: one key of 128 channels a token, and its scale.

A page holds all keys of its tokens first and all scales after them, so that a kernel reads keys in one run:

    byte 0                            page_tokens * 128                    page_tokens * 132
    | key of token 0 | key of token 1 | ... | f32 scale of 0 | f32 scale of 1 | ... |

With 64 tokens a page has 8448 bytes; with one token it is a key followed by its scale. Preshuffled pages (aiter) have
their keys in tiles of 16 tokens by 16 channels, and their scales where they always are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsa_exec.core.errors import LayoutError
from dsa_exec.layouts.paging import page_and_offset

SCALE_BYTES = 4
TILE = 16
"""Tokens, and channels, of a preshuffled tile."""


@dataclass(frozen=True, slots=True)
class IndexKLayout:
    """How an index-K cache lays out its bytes, and how the keys in it were made. Travels with the cache.

    Attributes:
        format: `fp8` (e4m3 and an f32 scale a token) or `model` (the model's dtype, no scale).
        page_tokens: tokens a page.
        head_dim: channels a key.
        order: `plain`, or `preshuffled` for aiter's matrix instructions.
        element_bytes: bytes a channel: 1 in the fp8 format, those of the model's dtype in the model format.
        pow2_scale: scales are rounded up to powers of two.
        hadamard: keys were rotated before they were quantised, so that queries must be too.
        unsigned_zero: no key holds -0, which is the byte of NaN where e4m3fnuz is read (gfx942).
    """

    format: Literal["fp8", "model"] = "fp8"
    page_tokens: int = 64
    head_dim: int = 128
    order: Literal["plain", "preshuffled"] = "plain"
    element_bytes: int = 1
    pow2_scale: bool = False
    hadamard: bool = False
    unsigned_zero: bool = False

    def __post_init__(self) -> None:
        if self.format not in ("fp8", "model"):
            raise LayoutError("index-K cache", "format", repr(self.format), "'fp8' or 'model'")
        if self.order not in ("plain", "preshuffled"):
            raise LayoutError("index-K cache", "order", repr(self.order), "'plain' or 'preshuffled'")
        if self.page_tokens < 1:
            raise LayoutError("index-K cache", "page size", self.page_tokens, "at least 1 token")
        if self.format == "fp8" and self.element_bytes != 1:
            raise LayoutError("index-K cache", "element_bytes", self.element_bytes, "1 in the fp8 format")
        if self.format == "fp8" and self.head_dim != 128:
            wanted = "128 channels in the fp8 format (index_k_format=model takes any number)"
            raise LayoutError("index-K cache", "head_dim", self.head_dim, wanted)
        of_fp8 = self.order != "plain", self.pow2_scale, self.hadamard, self.unsigned_zero
        if self.format == "model" and any(of_fp8):
            wanted = "fp8 for preshuffled, rounded or rotated keys, and for those without -0"
            raise LayoutError("index-K cache", "format", "model", wanted)
        if self.order == "preshuffled" and (self.page_tokens % TILE or self.head_dim % TILE):
            wanted = f"a multiple of {TILE} tokens for preshuffled keys"
            raise LayoutError("index-K cache", "page size", self.page_tokens, wanted)

    @property
    def spec(self) -> str:
        """The layout as one word, for whoever takes no objects: `fp8/64/128/plain/1/0/0/0`.

        It is the version of what the bytes mean: a node of a graph, a host, a file or another process that keeps the
        bytes keeps it with them (`caches/agreement.py`).
        """
        parts = self.format, self.page_tokens, self.head_dim, self.order, self.element_bytes
        return "/".join(map(str, (*parts, int(self.pow2_scale), int(self.hadamard), int(self.unsigned_zero))))

    @classmethod
    def of_spec(cls, spec: str) -> IndexKLayout:
        """The layout that `spec` is of.

        Raises:
            LayoutError: it is of none.
        """
        try:
            format, page_tokens, head_dim, order, element_bytes, *flags = spec.split("/")
            sizes = int(page_tokens), int(head_dim)
            pow2_scale, hadamard, unsigned_zero = ({"0": False, "1": True}[flag] for flag in flags)
            layout = cls(format, *sizes, order, int(element_bytes), pow2_scale, hadamard, unsigned_zero)  # type: ignore[arg-type]
        except (ValueError, KeyError) as error:
            if isinstance(error, LayoutError):
                raise
            wanted = f"eight parts, as in {cls().spec}"
            raise LayoutError("index-K cache", "spec", repr(spec), wanted) from None
        return layout

    @property
    def key_bytes(self) -> int:
        """Bytes of one key."""
        return self.head_dim * self.element_bytes

    @property
    def token_bytes(self) -> int:
        """Bytes of one token: its key, and its scale if it has one."""
        return self.key_bytes + (SCALE_BYTES if self.format == "fp8" else 0)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page."""
        return self.page_tokens * self.token_bytes

    @property
    def scales_offset_bytes(self) -> int:
        """Where in its page the scales begin."""
        return self.page_tokens * self.key_bytes

    def key_byte(self, slot: int, channel: int) -> int:
        """The address of one channel of the key in a slot."""
        page, token = page_and_offset(slot, self.page_tokens)
        start = page * self.page_bytes
        if self.order == "plain":
            return start + token * self.key_bytes + channel * self.element_bytes
        tile_bytes = TILE * TILE
        tile = (token // TILE) * (self.head_dim // TILE) + channel // TILE
        return start + tile * tile_bytes + (token % TILE) * TILE + channel % TILE

    def scale_byte(self, slot: int) -> int:
        """The address of the scale of the key in a slot."""
        page, token = page_and_offset(slot, self.page_tokens)
        return page * self.page_bytes + self.scales_offset_bytes + token * SCALE_BYTES


assert IndexKLayout().page_bytes == 64 * 128 + 64 * 4 == 8448
assert IndexKLayout(page_tokens=1).page_bytes == 132
