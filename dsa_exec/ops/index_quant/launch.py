"""How the kernels of `index_quant` are launched."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel.

    Attributes:
        rows: query heads a program, a power of two.
        warps: warps a program.
    """

    rows: int
    warps: int


def portable_launch(is_fp8: bool) -> PortableLaunch:
    """The launch parameters; without quantising, a row is a single number."""
    return PortableLaunch(rows=16, warps=4) if is_fp8 else PortableLaunch(rows=512, warps=4)
