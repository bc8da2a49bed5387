"""The caches of DeepSeek-V4: compressed KV tokens in padded pages, 4-bit index keys, and rows of compressor state.

A KV token in the fp8 format (448 channels without RoPE, 64 with):

    | 448 e4m3 | 64 bf16 RoPE | 7 scales of a byte, one for each 64 e4m3 | 1 byte that fills up |

and a page is padded to a multiple of 576 bytes, the e4m3 and bf16 bytes of a token, as flash_mla strides through them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsa_exec.core.errors import LayoutError

KV_GROUP = 64
"""e4m3 channels of a KV token that share a scale."""

TOKEN_ALIGNMENT_BYTES = 8
PAGE_ALIGNMENT_BYTES = 576

FP4_GROUP = 32
"""Channels of a 4-bit index key that share a scale of one byte."""


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


@dataclass(frozen=True, slots=True)
class V4KvLayout:
    """How a pool of KV tokens lies in memory. Travels with the tensor.

    Attributes:
        format: `fp8` (e4m3, scales, bf16 RoPE part, padded pages), `bf16` throughout, or `fp8-raw` (e4m3 throughout, no
            scales).
        page_tokens: tokens a page. A compressed token stands for 4 or 128 tokens of context.
        nope_dim: channels without RoPE (head_dim - qk_rope_head_dim).
        rope_dim: channels with RoPE (qk_rope_head_dim).
    """

    format: Literal["fp8", "bf16", "fp8-raw"] = "fp8"
    page_tokens: int = 128
    nope_dim: int = 448
    rope_dim: int = 64

    def __post_init__(self) -> None:
        if self.format not in ("fp8", "bf16", "fp8-raw"):
            raise LayoutError("V4 KV pool", "format", repr(self.format), "'fp8', 'bf16' or 'fp8-raw'")
        if self.page_tokens < 1:
            raise LayoutError("V4 KV pool", "page size", self.page_tokens, "at least 1 token")
        if self.format == "fp8" and self.nope_dim % KV_GROUP:
            wanted = f"a multiple of {KV_GROUP} channels in the fp8 format, because so many share a scale"
            raise LayoutError("V4 KV pool", "head_dim - qk_rope_head_dim", self.nope_dim, wanted)

    @property
    def spec(self) -> str:
        """The layout as one word: `dsv4/fp8/128/448/64`."""
        return f"dsv4/{self.format}/{self.page_tokens}/{self.nope_dim}/{self.rope_dim}"

    @property
    def token_bytes(self) -> int:
        """Bytes of one token, with the byte that fills it up, without the padding of its page."""
        if self.format == "fp8":
            scales = self.nope_dim // KV_GROUP
            return _round_up(self.nope_dim + 2 * self.rope_dim + scales, TOKEN_ALIGNMENT_BYTES)
        return (self.nope_dim + self.rope_dim) * (2 if self.format == "bf16" else 1)

    @property
    def page_bytes(self) -> int:
        """Bytes of one page, padding included."""
        alignment = PAGE_ALIGNMENT_BYTES if self.format == "fp8" else 1
        return _round_up(self.page_tokens * self.token_bytes, alignment)


@dataclass(frozen=True, slots=True)
class Fp4IndexLayout:
    """How a pool of 4-bit index keys lies in memory: two channels a byte, then the scales.

    Attributes:
        page_tokens: tokens a page.
        head_dim: channels a key.
    """

    page_tokens: int = 64
    head_dim: int = 128

    def __post_init__(self) -> None:
        if self.page_tokens < 1:
            raise LayoutError("fp4 index-K pool", "page size", self.page_tokens, "at least 1 token")
        if self.head_dim < 1 or self.head_dim % FP4_GROUP:
            wanted = f"a multiple of {FP4_GROUP} channels, because so many share a scale"
            raise LayoutError("fp4 index-K pool", "index_head_dim", self.head_dim, wanted)

    @property
    def spec(self) -> str:
        """The layout as one word: `fp4/64/128`."""
        return f"fp4/{self.page_tokens}/{self.head_dim}"

    @property
    def token_bytes(self) -> int:
        """Bytes of one key and its scales."""
        return self.head_dim // 2 + self.head_dim // FP4_GROUP

    @property
    def page_bytes(self) -> int:
        """Bytes of one page."""
        return self.page_tokens * self.token_bytes


@dataclass(frozen=True, slots=True)
class StateLayout:
    """How the state of compressors lies in memory: rows of numbers, in rings of `page_tokens` rows.

    Attributes:
        page_tokens: rows a page, which for ratio 4 is the ring that belongs to a page of the sliding window.
        width: numbers a row: what is compressed and its gates, twice where compressed groups overlap.
        element_bytes: bytes of a number: 4 (f32) or 2 (bf16).
    """

    page_tokens: int
    width: int
    element_bytes: int = 4

    def __post_init__(self) -> None:
        if self.page_tokens < 1:
            raise LayoutError("compress-state pool", "page size", self.page_tokens, "at least 1 row")
        if self.width < 1:
            raise LayoutError("compress-state pool", "width", self.width, "at least 1 number")
        if self.element_bytes not in (2, 4):
            raise LayoutError("compress-state pool", "element_bytes", self.element_bytes, "4 (f32) or 2 (bf16)")

    @property
    def spec(self) -> str:
        """The layout as one word: `state/8/2048/4`."""
        return f"state/{self.page_tokens}/{self.width}/{self.element_bytes}"

    @property
    def token_bytes(self) -> int:
        """Bytes of one row."""
        return self.width * self.element_bytes

    @property
    def page_bytes(self) -> int:
        """Bytes of one page."""
        return self.page_tokens * self.token_bytes


assert V4KvLayout().token_bytes == 448 + 2 * 64 + 448 // 64 + 1 == 584
assert V4KvLayout("bf16").token_bytes == 1024
assert V4KvLayout("fp8-raw").token_bytes == 512
assert V4KvLayout(page_tokens=128).page_bytes == 130 * 576
assert V4KvLayout(page_tokens=2).page_bytes == 3 * 576
assert Fp4IndexLayout().token_bytes == 64 + 4 == 68
assert StateLayout(8, 4 * 512).page_bytes == 8 * 2048 * 4
