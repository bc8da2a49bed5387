"""flash_mla: which of its builds this package can use, and what both of its sparse functions take."""

from __future__ import annotations

from typing import Any

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.head_padding import lies_together, says_padding
from dsa_exec.core.triton_support import refuses_old_triton
from dsa_exec.core.vendors import Library

ARCHS = ("sm90", "sm100", "sm103")
"""What flash_mla has sparse kernels for. Only sm90 was ever run with this package."""

WIDTH, VALUES = 576, 512
"""Channels of a token, and those of them that are its value: DeepSeek's 512 latent and 64 RoPE channels."""

HEADS = (64, 128)
"""How many heads its kernels take."""

TILE = 128
"""A kernel takes whole tiles of indices: 64 in decode, two of 64 in prefill on sm90, 128 in prefill on sm100."""


def refuses_without_flash_mla(hw: Capabilities) -> str | None:
    """Why flash_mla cannot be used on a device; None if it can."""
    if hw.arch not in ARCHS:
        return f"arch={hw.arch}: flash_mla has sparse kernels for {', '.join(ARCHS)}"
    if (sentence := hw.refuses_without("flash_mla")) is not None:
        return sentence
    library = hw.library("flash_mla")
    if library.generation == 1:
        return f"{library} makes a schedule of lengths, as it did before it had sparse attention; 2 is wanted"
    legacy = library.takes("flash_mla_with_kvcache", "use_legacy")
    if library.takes("flash_mla_with_kvcache", "enable_batch_invariant") and not legacy:
        return (
            f"{library} has enable_batch_invariant and no use_legacy: since then it lacks kernels for {WIDTH} channels"
        )
    if legacy and not getattr(library.module, "has_legacy", lambda: True)():
        return f"{library} was built without its legacy kernels, which those for {WIDTH} channels are among"
    return refuses_old_triton(hw)


def refuses_queries(q: torch.Tensor) -> str | None:
    """Why neither function takes such queries; None if they do."""
    if q.dtype is not torch.bfloat16:
        return f"q is {str(q.dtype).removeprefix('torch.')}, flash_mla takes bfloat16"
    if q.shape[1] > HEADS[-1]:
        return f"{q.shape[1]} heads: flash_mla takes at most {HEADS[-1]}"
    return None


def heads_taken(heads: int, hw: Capabilities, *, prefill: bool) -> int:
    """How many heads flash_mla is given for so many; not every build has a prefill kernel for 64 on sm100."""
    least = HEADS[-1] if prefill and hw.arch != "sm90" else heads
    return next(count for count in HEADS if count >= max(heads, least))


def says_changes(q: torch.Tensor, taken: int) -> str | None:
    """What is done to queries before flash_mla gets them, in words; None if nothing is."""
    if (padding := says_padding(q.shape[1], taken)) is not None:
        return padding
    return None if lies_together(q) else f"q with strides {list(q.stride())} copied to be contiguous"


def flash_mla_options(library: Library, function: str) -> dict[str, Any]:
    """Arguments that only some builds have: sgl-flash-mla keeps kernels for 576 channels among its legacy ones.

    `return_log2_lse` is left alone where there is one: its default gives natural logarithms, and False gives none.
    """
    return {"use_legacy": True} if library.takes(function, "use_legacy") else {}
