"""How the kernel of `topk_candidates` is launched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel.

    Attributes:
        block: picked positions a program, a power of two.
        warps: warps a program.
    """

    block: int
    warps: int


def portable_launch(k: int) -> PortableLaunch:
    """The launch parameters for rows of so many positions."""
    block = min(max(1 << (k - 1).bit_length(), 128), 1024) if k else 128
    return PortableLaunch(block, warps=max(block // 256, 1))
