"""How the kernels of `topk` are launched: parameters with measured rules of thumb."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel: one program a row.

    Attributes:
        block: columns looked at in one step, a power of two of at most 16384.
        warps: warps a program.
        digit_bits: bits found in one pass over the row: 1, 2, 4, 8 or 16. Triton counts into 2**bits bins by looking at
            every bin of every 32 keys: beyond 8, more bits cost more than fewer passes save.
    """

    block: int
    warps: int
    digit_bits: int = 8


def portable_launch(width: int) -> PortableLaunch:
    """The launch parameters for rows of this width."""
    block = min(max(1 << (width - 1).bit_length(), 256), 4096)
    return PortableLaunch(block, warps=max(block // 512, 1))


MOST_BLOCKS = 16
"""How many blocks a cluster can have on Hopper; more than 8 are allowed there, if not everywhere."""

MOST_COLUMNS = 16384
"""How many columns a block of the cluster kernel takes at most: 16 in each of 1024 threads' registers."""


@dataclass(frozen=True, slots=True)
class ClusterLaunch:
    """Launch parameters of the kernel that gives each row a cluster of blocks.

    Attributes:
        blocks: blocks a cluster, a power of two of at most 16.
        columns: columns a block, a power of two of at most 16384; all blocks together hold a row.
        warps: warps a block; each takes 128 columns at least.
        overlap: whether a launch may start while the kernel before it ends; it waits before it reads.
    """

    blocks: int
    columns: int
    warps: int
    overlap: bool = True


def cluster_launch(rows: int, width: int) -> ClusterLaunch:
    """The launch parameters for this many rows of this width."""
    size = max(4096, 1 << (width - 1).bit_length())
    if size <= MOST_COLUMNS and rows > 64:
        return ClusterLaunch(1, size, 16 if size <= 4096 else 32)
    blocks = 16 if rows <= 8 else 4
    blocks = max(min(blocks, size // 4096), size // MOST_COLUMNS)
    columns = size // blocks
    return ClusterLaunch(blocks, columns, 16 if columns <= 8192 else 32)
