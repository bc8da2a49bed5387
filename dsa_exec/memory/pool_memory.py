"""What of a device's memory is for pools: its share for weights and pools, less what is taken already."""

from __future__ import annotations

from fractions import Fraction

from dsa_exec.core.errors import PlanError
from dsa_exec.core.hardware import MemoryReading

USUAL_FRACTION = Fraction(9, 10)
"""The share of a device for weights and pools, where `mem_fraction_static` is not set."""


def static_bytes(total_bytes: int, fraction: Fraction) -> int:
    """What of a device is for weights and pools, in whole bytes."""
    return total_bytes * fraction.numerator // fraction.denominator


def pool_bytes(memory: MemoryReading, fraction: Fraction) -> int:
    """What pools may take of a device on which weights lie already, and nothing else that goes away again.

    All that is neither free nor reusable is taken from the share for weights and pools; the rest of the device stays
    free for all else. With weights alone on the device it is what `dsa plan` computes from their size.

    Args:
        memory: the device as of now.
        fraction: the share of it for weights and pools.

    Raises:
        PlanError: nothing is left.
    """
    static = static_bytes(memory.total_bytes, fraction)
    taken = memory.total_bytes - memory.available_bytes
    if static <= taken:
        static_of = f"{memory.total_bytes} x {float(fraction):g} = {static}"
        wanted = f"fewer than the {static_of} of the device that are for weights and pools, so that some are left"
        change = "Put less on the device before the pools, or raise mem_fraction_static"
        raise PlanError("number of bytes that are taken already", taken, wanted, change)
    return static - taken
