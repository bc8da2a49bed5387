"""How the kernels of `sparse_mla_prefill` are launched, by rules of thumb that were measured on an H100."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Parameters of the plain Triton kernel.

    Attributes:
        heads: query heads of a program, a power of two.
        keys: gathered rows of a tile, a power of two.
        values: value channels of a program, a power of two.
        rest: further channels of a step of the scores, a power of two.
        stages: how many tiles are in flight.
        warps: of a program.
    """

    heads: int
    keys: int
    values: int
    rest: int
    stages: int
    warps: int


@dataclass(frozen=True, slots=True)
class HopperLaunch:
    """Parameters of the Hopper kernels.

    Attributes:
        heads: query heads of a program: 16 or 32 of the narrow kernel, 64 of the wide one.
        buffers: of the narrow kernel's ring, 128 channels of a tile each; 5 fit with 16 heads, 4 with 32.
        copy_registers: of a thread that copies, a multiple of 8.
        registers: of a thread of the wide kernel's second multiplying warpgroup, a multiple of 8.
    """

    heads: int
    buffers: int
    copy_registers: int
    registers: int


_NARROW_16 = HopperLaunch(16, buffers=5, copy_registers=56, registers=0)
_NARROW_32 = HopperLaunch(32, buffers=4, copy_registers=24, registers=0)
_WIDE = HopperLaunch(64, buffers=0, copy_registers=72, registers=216)


def hopper_launch(heads: int) -> HopperLaunch:
    """The Hopper kernels' parameters for so many heads of a query."""
    if heads <= 16:
        return _NARROW_16
    return _NARROW_32 if heads <= 32 else _WIDE


def portable_launch(d: int, d_v: int) -> PortableLaunch:
    """The plain Triton kernel's parameters.

    Args:
        d: channels of a row.
        d_v: value channels of a row.
    """
    values = min(max(16, _power_of_two(d_v)), 512)
    rest = min(max(16, _power_of_two(d - d_v)), 64)
    return PortableLaunch(heads=16, keys=32, values=values, rest=rest, stages=2, warps=4)


def _power_of_two(number: int) -> int:
    """The least power of two that is not less than a number."""
    return 1 << max(number - 1, 0).bit_length()
