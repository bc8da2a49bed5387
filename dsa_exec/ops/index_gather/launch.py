"""How the kernels of `index_gather` are launched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel.

    Attributes:
        tokens: tokens a program, a power of two.
        lens: lengths of requests that a program adds up at once, a power of two.
        warps: warps a program.
    """

    tokens: int
    lens: int
    warps: int


def portable_launch(requests: int) -> PortableLaunch:
    """The launch parameters for so many requests."""
    lens = min(max(1 << (requests - 1).bit_length(), 16), 1024) if requests else 16
    return PortableLaunch(tokens=32, lens=lens, warps=4)
