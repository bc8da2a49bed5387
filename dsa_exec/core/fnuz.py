"""e4m3 numbers for hardware that reads them as e4m3fnuz (gfx942).

The same byte is half the number there, exactly, with two exceptions: 0x80 is -0 in e4m3 and NaN there, and what is NaN
in e4m3 is a number there.
"""

from __future__ import annotations

import torch

E4M3_FNUZ = torch.float8_e4m3fnuz
NEGATIVE_ZERO = 0x80
PRODUCT_FACTOR = 4.0
"""What a product of two halves is multiplied by."""


def reads_fnuz(arch: str) -> bool:
    """Whether matrix instructions of an architecture read e4m3fnuz."""
    return arch == "gfx942"


def halves_as_fnuz(values: torch.Tensor) -> torch.Tensor:
    """A copy whose bytes, read as e4m3fnuz, are half the values; -0 becomes 0.

    Args:
        values: e4m3, any shape.

    Returns:
        e4m3fnuz, of the same shape.
    """
    return without_negative_zeros(values.view(torch.uint8)).view(E4M3_FNUZ)


def without_negative_zeros(codes: torch.Tensor) -> torch.Tensor:
    """A copy of the codes, uint8, of e4m3 numbers, with 0 for -0."""
    return codes.masked_fill(codes == NEGATIVE_ZERO, 0)
