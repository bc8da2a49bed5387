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
        stages: pages that are on their way at a time, at most 16.
        least: pages that a program takes at least, so that few pages are not spread over all programs.
        overlap: whether a launch may start while the kernel before it ends; it waits before it reads. The kernel after
            it always may.
        kept: whether logits are written so that the second-level cache keeps them rather than keys.
    """

    programs: int
    stages: int
    least: int
    overlap: bool = True
    kept: bool = False


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


MOST_KEPT_BYTES = 40 * 2**20
"""Logits of more bytes crowd each other out of the second-level cache of an H100, which has 50 MiB, and all else."""

MOST_OVERLAPPED_PAGES = 8192
"""Beyond, launches do not overlap: programs that come early crowd some multiprocessors, which longer calls wait for."""


def hopper_launch(requests: int, next_n: int, heads: int, width: int) -> HopperLaunch:
    """Launch parameters of the kernel for Hopper.

    Args:
        requests: how many.
        next_n: query rows a request.
        heads: index heads.
        width: columns of the result.
    """
    columns = min(next_n, 4) * heads
    programs, stages = 4 if columns <= 64 else 3 if columns <= 128 else 2, 4
    if columns <= 64 and next_n == 1 and requests > 1:  # otherwise a thread has too many registers for five
        programs, stages = 5, 3
    overlap = requests * -(-width // 64) <= MOST_OVERLAPPED_PAGES
    kept = requests * next_n * width * 4 <= MOST_KEPT_BYTES
    return HopperLaunch(programs, stages, least=2, overlap=overlap, kept=kept)


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()
