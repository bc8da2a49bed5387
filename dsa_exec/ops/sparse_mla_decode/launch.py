"""How the kernels of `sparse_mla_decode` are launched, by rules of thumb that were measured on an H100."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import NamedTuple

from dsa_exec.core.errors import LaunchError

MOST_SLICES = 64
"""Of a row: the kernel that puts them together takes them all at once."""

TILE = 64
"""Tokens of a tile of the Hopper kernel."""

_COMBINING, _FEW_SLICES = 128, 4
"""Programs that put slices together, if rows have no more of them than this."""

_COMBINED = 8192
"""The most values of all slices that such a program takes, 32 a thread."""


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Parameters of the plain Triton kernel.

    Attributes:
        heads: query heads of a program, a power of two of at least 16.
        tokens: of a tile, a power of two of at least 16.
        channels: latent channels of a program, a power of two of at least 16, and of at least 128 in the fp8 format.
        rope: RoPE channels of a step, a power of two of at least 16.
        slices: of each row; more than it has tiles, or than 64, mean as many.
        stages: tiles in flight.
        warps: of a program.
        bf16: with bf16 queries, make the fp8 format's latents bf16 and not float16. Both take e4m3 as it is; float16
            rounds its product with the scale eight times finer, and is infinite from 65520 on.
    """

    heads: int
    tokens: int
    channels: int
    rope: int
    slices: int
    stages: int
    warps: int
    bf16: bool = False


@dataclass(frozen=True, slots=True)
class HopperLaunch:
    """Parameters of the Hopper kernel.

    Attributes:
        heads: query heads of a program: 16, 32 or 64.
        slices: of each row; more than it has tiles, or than 64, mean as many.
        overlap: start while the kernel before this one ends, and let the next one start while this one does.
        bf16: as in `PortableLaunch`.
    """

    heads: int
    slices: int
    overlap: bool = True
    bf16: bool = False


@dataclass(frozen=True, slots=True)
class CombineLaunch:
    """Parameters of the kernel that puts slices together.

    Attributes:
        places: of a program, a power of two; a place is a head of a row.
        channels: of each, a power of two.
        warps: of a program.
    """

    places: int
    channels: int
    warps: int


class Roles(NamedTuple):
    """How the warps of a program of the Hopper kernel share the work, by what fits registers and shared memory.

    Attributes:
        warps: that multiply.
        producers: warpgroups that gather.
        buffers: tiles in shared memory.
        gather_registers: of a thread that gathers.
        registers: of a thread, on average.
        raw: tiles hold codes, whose scales are applied to scores and weights.
    """

    warps: int
    producers: int
    buffers: int
    gather_registers: int
    registers: int
    raw: bool = False


# One program fits a multiprocessor. Registers are where the compiler spills least.
_ROLES = {
    16: Roles(4, 2, 2, 128, 168),
    32: Roles(4, 2, 2, 128, 168),
    64: Roles(8, 1, 2, 120, 168),
}


def roles_of(heads: int) -> Roles:
    """The roles of a program of so many heads.

    Raises:
        LaunchError: none are known.
    """
    if heads not in _ROLES:
        raise LaunchError(f"sparse_mla_decode.gluon.heads={heads}", f"one of {', '.join(map(str, _ROLES))} heads")
    return _ROLES[heads]


@functools.lru_cache(maxsize=256)
def portable_launch(
    rows: int, heads: int, k: int, latent_dim: int, rope_dim: int, *, wide: bool, multiprocessors: int
) -> PortableLaunch:
    """The plain Triton kernel's parameters.

    Args:
        rows: how many queries.
        heads: of a query.
        k: slots of a query.
        latent_dim: channels of a latent.
        rope_dim: channels of a RoPE part.
        wide: products are of f32, which takes twice the shared memory and no matrix units.
        multiprocessors: of the device.
    """
    block = 16 if heads <= 16 or wide else 32
    tokens = 16 if wide else 32
    channels = min(max(_power_of_two(latent_dim), 16), 512)
    programs = rows * -(-heads // block) * -(-latent_dim // channels)
    slices = row_slices(programs, -(-k // tokens), 2 * multiprocessors)
    rope = min(max(_power_of_two(rope_dim), 16), 64)
    return PortableLaunch(
        block, tokens, channels, rope, slices, stages=1 if wide else 2, warps=4 if block == 16 and not wide else 8
    )


@functools.lru_cache(maxsize=256)
def hopper_launch(rows: int, heads: int, k: int, *, multiprocessors: int) -> HopperLaunch:
    """The Hopper kernel's parameters; arguments as of `portable_launch`."""
    block = 16 if heads <= 16 else 32 if heads <= 32 else 64
    programs = rows * -(-heads // block)
    slices = row_slices(programs, -(-k // TILE), multiprocessors)
    # What puts many slices together has much to read, and takes room where it starts early, unless there is room left.
    little = programs * slices <= multiprocessors // 2 and rows * heads * 4 <= multiprocessors
    return HopperLaunch(block, slices, overlap=slices <= _FEW_SLICES or little)


def row_slices(programs: int, tiles: int, seats: int) -> int:
    """Into how many slices to cut each row, so that the device is full and no program waits for another.

    Args:
        programs: without slices.
        tiles: of a row.
        seats: programs that run at a time.
    """
    return max(1, min(tiles, MOST_SLICES, seats // max(programs, 1)))


@functools.lru_cache(maxsize=256)
def combine_launch(places: int, slices: int, latent_dim: int) -> CombineLaunch:
    """Parameters of the kernel that puts slices together.

    With overlap its programs start where programs that made slices end, the first of which take as many of them as fit.
    Where each has little to do, about as many as there are multiprocessors are launched sooner than more. Of many
    slices a program reads one place's, and of few places a quarter of that: reading takes most of its time.

    Args:
        places: heads of all rows.
        slices: of a row, at most `MOST_SLICES`.
        latent_dim: channels of a place.
    """
    width = _power_of_two(latent_dim)
    if slices > _FEW_SLICES:
        return CombineLaunch(1, min(width, 128 if places < 512 else 512), 4 if slices >= 8 else 2)
    parts = max(2, _power_of_two(slices))
    outputs = min(max(_power_of_two(places * width // _COMBINING), 128), _COMBINED // parts)
    warps = min(max(parts * outputs // 1024, 1), 8)
    return CombineLaunch(max(1, outputs // width), min(width, outputs), warps)


def slice_tokens(k: int, slices: int, tile: int) -> tuple[int, int]:
    """How many slots a slice has, whole tiles, and how many slices that makes of `k` slots."""
    tiles = max(1, -(-k // tile))
    per_slice = -(-tiles // max(1, min(slices, tiles, MOST_SLICES)))
    return per_slice * tile, -(-tiles // per_slice)


def _power_of_two(number: int) -> int:
    """The least power of two that is not less than a number."""
    return 1 << max(number - 1, 0).bit_length()
