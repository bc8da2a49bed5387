"""How the kernel of `topk_merge` is launched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel: one program a row.

    Attributes:
        block: candidates looked at in one step, a power of two.
        warps: warps a program.
        held: up to so many candidates of a row, all parts together, are held in registers. More are read from memory
            for each count.
    """

    block: int
    warps: int
    held: int


def portable_launch(candidates: int) -> PortableLaunch:
    """The launch parameters for so many candidates of a part."""
    block = min(max(1 << (candidates - 1).bit_length(), 128), 4096) if candidates else 128
    return PortableLaunch(block, warps=max(min(block // 256, 8), 1), held=16384)
