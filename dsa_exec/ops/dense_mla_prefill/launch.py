"""How the kernel of `dense_mla_prefill` is launched."""

from __future__ import annotations

from dataclasses import dataclass

WIDE_ARCHS = ("sm90", "sm100", "sm103")
"""Where a program has the shared memory, and matrix units the use, for 64 queries."""


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Parameters of the plain Triton kernel. All but `stages` are powers of two.

    Attributes:
        queries: pairs of a query row and a head that a program has.
        keys: keys of a tile.
        values: value channels of a program.
        rest: further channels of a step of the scores.
        stages: how many tiles are in flight.
        warps: of a program.
    """

    queries: int
    keys: int
    values: int
    rest: int
    stages: int
    warps: int


def portable_launch(arch: str, pairs: int, d: int, d_v: int, element_bytes: int) -> PortableLaunch:
    """The parameters for a call of these sizes.

    Matrix units of sm90 and sm100 take 64 rows at least, and the shared memory beside them holds as many queries of
    576 channels and two tiles of 64 keys, 208 KiB. Elsewhere 54 KiB of 16-bit channels suffice, or 73 KiB of f32.

    Args:
        arch: the device's.
        pairs: query rows times heads.
        d: channels of a row.
        d_v: value channels of a row.
        element_bytes: of a channel.
    """
    values = min(max(16, _power_of_two(d_v)), 512)
    rest = min(max(16, _power_of_two(d - d_v)), 64)
    if element_bytes == 4:
        queries, keys, warps = 16, 16, 4
    elif arch in WIDE_ARCHS and pairs > 16:
        queries, keys, warps = 64, 64, 8
    else:
        queries, keys, warps = 16, 32, 4
    return PortableLaunch(queries=queries, keys=keys, values=values, rest=rest, stages=2, warps=warps)


def _power_of_two(number: int) -> int:
    """The least power of two that is not less than a number."""
    return 1 << max(number - 1, 0).bit_length()
