"""How the kernels of `paged_mqa_logits` are launched, by rules of thumb that were measured on an H100."""

from __future__ import annotations

from dataclasses import dataclass

NATIVE_E4M3 = ("sm89", "sm90", "sm100", "sm103", "sm120", "sm121", "gfx950")
"""Architectures whose matrix units take e4m3 as it is. Elsewhere codes are turned into f16 first, which is exact."""


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """The portable kernel.

    Attributes:
        keys: keys of a product; they are its rows.
        rows: query rows of a product. Row and head together are its columns.
        heads: heads of a product.
        channels: channels of a product; a longer key takes several.
        blocks: how many times `keys` a program works through.
        warps: warps of a program.
        stages: how far loads run ahead.
    """

    keys: int
    rows: int
    heads: int
    channels: int
    blocks: int
    warps: int
    stages: int


@dataclass(frozen=True, slots=True)
class HopperLaunch:
    """The kernel for Hopper.

    Attributes:
        programs: programs a multiprocessor.
        stages: pages that are on their way at a time; a power of two.
        least: pages that a program takes at least, so that few pages are not spread over all programs.
    """

    programs: int
    stages: int
    least: int


def portable_launch(requests: int, next_n: int, heads: int, head_dim: int, width: int, *, wide: bool) -> PortableLaunch:
    """Launch parameters of the portable kernel.

    Args:
        requests: how many.
        next_n: query rows a request.
        heads: index heads.
        head_dim: channels a key.
        width: columns of the result.
        wide: the kernel multiplies f32, which takes no matrix units but many registers.
    """
    columns = 64 if wide else 128
    block_heads = min(_power_of_two(heads), 64)
    rows = min(_power_of_two(next_n), max(columns // block_heads, 1))
    block_heads = max(block_heads, 16 // rows)  # a product has 16 columns at least
    keys = 64
    spans = -(-width // keys) * requests
    blocks = min(max(spans // PROGRAMS_WANTED, 1), 16)
    channels = min(max(_power_of_two(head_dim), 32), 32 if wide else 128)
    return PortableLaunch(keys, rows, block_heads, channels, blocks, warps=4, stages=2 if wide else 3)


PROGRAMS_WANTED = 1056
"""Programs among which the portable kernel spreads its work: eight for each multiprocessor of an H100."""


def hopper_launch(next_n: int, heads: int) -> HopperLaunch:
    """Launch parameters of the kernel for Hopper.

    Args:
        next_n: query rows a request.
        heads: index heads.
    """
    columns = min(next_n, 4) * heads
    return HopperLaunch(programs=4 if columns <= 64 else 3 if columns <= 128 else 2, stages=4, least=2)


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()
