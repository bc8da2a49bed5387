"""How the kernels of `step_metadata` are launched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel.

    Attributes:
        rows: rows whose lengths a program works out, a power of two.
        pages: pages of one row that a program copies, a power of two.
        warps: warps a program.
    """

    rows: int
    pages: int
    warps: int


def portable_launch() -> PortableLaunch:
    """The launch parameters."""
    return PortableLaunch(rows=128, pages=2048, warps=4)
