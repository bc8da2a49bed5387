"""The one decision about an index-K cache's pages: how many tokens, and in which order their keys lie.

Made from the device and from the settings as they are when a cache is allocated, and kept with the cache. Page tables,
the gather and every kernel follow the cache's layout afterwards; nobody asks a setting again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from dsa_config import settings
from dsa_exec.core.errors import LayoutError
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.preshuffle import ARCHITECTURES, Condition, refuses_preshuffle
from dsa_exec.layouts.index_k import TILE

_log = logging.getLogger("dsa_exec.caches")
_said: set[str] = set()

Format = Literal["fp8", "model"]
Order = Literal["plain", "preshuffled"]

PAGE_TOKENS = 64
"""Tokens a page, where nothing asks for another number."""


@dataclass(frozen=True, slots=True)
class PageDecision:
    """What pages an index-K cache gets, and why.

    Attributes:
        page_tokens: tokens a page.
        order: plain or preshuffled.
        why: the reason, in words.
        failed: on ROCm the condition because of which pages are not preshuffled; None where there is none.
    """

    page_tokens: int
    order: Order
    why: str
    failed: Condition | None = None

    def __str__(self) -> str:
        """The pages and the reason."""
        return f"{pages_in_words(self.page_tokens, self.order)} ({self.why})"


def pages_in_words(page_tokens: int, order: str) -> str:
    """Such as "plain pages of 1"."""
    return f"{order} pages of {page_tokens}"


def decide_pages(format: Format, hw: Capabilities) -> PageDecision:
    """The decision for a device, by the settings as they are now. Says nothing to anybody.

    Args:
        format: what the cache holds.
        hw: the device.
    """
    if format == "model":
        return PageDecision(PAGE_TOKENS, "plain", "index_k_format=model, which vendors' kernels do not read")
    if hw.device_type != "cuda":
        return PageDecision(PAGE_TOKENS, "plain", f"the {hw.device_type} takes any pages")
    if not hw.is_hip:
        return PageDecision(PAGE_TOKENS, "plain", "kernels for CUDA take these")
    failed = refuses_preshuffle(
        hw,
        use_aiter=settings.use_aiter,
        hip_disable_preshuffle=settings.hip_disable_preshuffle,
        aiter_enable_aot_gluon_pa_mqa_logits=settings.aiter_enable_aot_gluon_pa_mqa_logits,
    )
    if failed is None:
        return PageDecision(PAGE_TOKENS, "preshuffled", "aiter's kernel for preshuffled pages can run")
    return PageDecision(1, "plain", f"aiter's kernel for preshuffled pages cannot run: {failed}", failed)


def pages_for_allocation(
    format: Format, hw: Capabilities, page_tokens: int | None, order: Order | None
) -> PageDecision:
    """The decision for a cache that is being allocated: what is asked for, if it can be, and else what is decided.

    Falling back to pages of one token is told to the log, once for each reason.

    Args:
        format: what the cache holds.
        hw: the device.
        page_tokens: tokens a page, if they are asked for.
        order: the order of keys, if it is asked for.

    Raises:
        LayoutError: pages are asked for that no kernel of the device takes.
    """
    decided = decide_pages(format, hw)
    if page_tokens is None and order is None:
        _say_fall_back(decided, hw)
        return decided
    if order is None:
        assert page_tokens is not None
        order = "preshuffled" if decided.order == "preshuffled" and page_tokens % TILE == 0 else "plain"
    if page_tokens is None:
        page_tokens = 1 if order == "plain" and hw.is_hip and format == "fp8" else PAGE_TOKENS
    _require_pages(format, hw, page_tokens, order, decided)
    return PageDecision(page_tokens, order, "asked for", decided.failed)


def _require_pages(format: Format, hw: Capabilities, page_tokens: int, order: Order, decided: PageDecision) -> None:
    # That preshuffled pages are whole tiles, and of the fp8 format, is the layout's own rule.
    if format == "model" or hw.device_type != "cuda":
        return
    if not hw.is_hip and (page_tokens != PAGE_TOKENS or order != "plain"):
        wanted = f"plain pages of {PAGE_TOKENS} on {hw.arch}, as kernels for CUDA take them"
        raise LayoutError("index-K cache", "page layout", pages_in_words(page_tokens, order), wanted)
    if hw.is_hip and order == "plain" and page_tokens != 1:
        wanted = f"1 token for plain pages on {hw.arch}"
        if decided.failed is not None:
            wanted += f"; preshuffled ones would be of {PAGE_TOKENS}, but {decided.failed}"
        raise LayoutError("index-K cache", "page size", page_tokens, wanted)


def _say_fall_back(decided: PageDecision, hw: Capabilities) -> None:
    """Tell that pages have one token: as a warning where aiter is wanted, or could be on this architecture."""
    if decided.failed is None or decided.why in _said:
        return
    _said.add(decided.why)
    told = "the index-K cache on %s gets plain pages of 1 token: %s. Page tables are 64 times as long as with %s"
    level = logging.WARNING if settings.use_aiter or hw.arch in ARCHITECTURES else logging.INFO
    _log.log(level, told, hw.arch, decided.failed, pages_in_words(PAGE_TOKENS, "preshuffled"))


def forget_warnings() -> None:
    """Tell everything anew: for tests."""
    _said.clear()
