"""How the kernels of `mqa_logits` are launched: parameters with measured rules of thumb."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_CHUNK, MOST_CHUNK = 256, 8192
"""Keys of a chunk: fewer than the least are little beside a program's start, more than the most gain nothing."""

PROGRAMS = 264
"""How many programs an H100 runs at once: two on each of 132 multiprocessors. Fewer leave some of it idle."""


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel. All but `stages` are powers of two, `chunk_keys` at least `tile_keys`.

    Attributes:
        columns: columns of a product: query rows of a program times heads, padded to a power of two.
        tile_keys: keys of a product.
        channels: channels of a product.
        chunk_keys: keys of a program.
        stages: tiles in flight.
        warps: warps of a program.
    """

    columns: int
    tile_keys: int
    channels: int
    chunk_keys: int
    stages: int
    warps: int


@dataclass(frozen=True, slots=True)
class HopperLaunch:
    """Launch parameters of the kernel for Hopper.

    Attributes:
        chunk_keys: keys of a program, a multiple of 128.
        stages: slots of 128 keys in flight. Two programs share a multiprocessor up to 4.
        unroll: slots in one body of the loop, which begins and ends with the matrix units idle; a divisor of `stages`.
    """

    chunk_keys: int
    stages: int
    unroll: int


def portable_launch(
    arch: str, rows: int, heads: int, channels: int, key_count: int, element_bytes: int
) -> PortableLaunch:
    """The launch parameters for a call of these sizes.

    Args:
        arch: the device's.
        rows: query rows.
        heads: heads of a row.
        channels: channels of a head.
        key_count: keys.
        element_bytes: of a channel.
    """
    padded_heads = _power_of_two(heads)
    if element_bytes == 4:  # no matrix units: small parts, so that they fit the registers
        most, tile_keys, part, stages, warps = 64, 128, 32, 2, 8
    else:
        most, tile_keys, part, stages, warps = 256 if arch == "sm90" else 128, 64, 128, 3, 4
    if channels > part:
        most = min(most, 128)
    columns = max(min(most, padded_heads * _power_of_two(rows)), padded_heads, 16)
    return PortableLaunch(
        columns=columns,
        tile_keys=tile_keys,
        channels=min(max(_power_of_two(channels), 32), part),
        chunk_keys=_chunk_keys(-(-rows * padded_heads // columns), key_count),
        stages=stages,
        warps=warps,
    )


def hopper_launch(rows: int, heads: int, key_count: int) -> HopperLaunch:
    """The launch parameters for a call of these sizes."""
    return HopperLaunch(chunk_keys=_chunk_keys(-(-rows * heads // 256), key_count), stages=4, unroll=2)


def _chunk_keys(row_blocks: int, key_count: int) -> int:
    chunk = _power_of_two(-(-key_count * row_blocks // PROGRAMS))
    return min(max(chunk, LEAST_CHUNK), MOST_CHUNK)


def _power_of_two(least: int) -> int:
    return 1 << max(least - 1, 0).bit_length()
