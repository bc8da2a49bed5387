"""How the kernels of `step_metadata` are launched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel.

    Attributes:
        rows: rows whose lengths a program works out, a power of two.
        pages: pages of one row that a program copies, a power of two.
        summed: lengths that a program sums up at a time, a power of two.
        warps: warps a program.
    """

    rows: int
    pages: int
    summed: int
    warps: int


def portable_launch() -> PortableLaunch:
    """The launch parameters."""
    return PortableLaunch(rows=128, pages=2048, summed=1024, warps=4)


@dataclass(frozen=True, slots=True)
class CopyLaunch:
    """Launch parameters of the kernel that copies metadata to other steps.

    Attributes:
        elements: elements of one row that a program copies, a power of two.
        warps: warps a program.
    """

    elements: int
    warps: int


def copy_launch() -> CopyLaunch:
    """The launch parameters."""
    return CopyLaunch(elements=2048, warps=4)
