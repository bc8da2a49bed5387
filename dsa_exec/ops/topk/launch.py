"""How the kernels of `topk` are launched: parameters with measured rules of thumb."""

from __future__ import annotations

from dataclasses import dataclass

MOST_WIDTH = 2**31 - 2**15
"""The widest row whose columns an int32 can number, with room for the last step beyond the row's end."""


def refuses_width(width: int) -> str | None:
    """Why no kernel takes rows of this width; None if they do."""
    return f"{width} columns, these kernels number up to {MOST_WIDTH} in int32" if width > MOST_WIDTH else None


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel: one program a row.

    Attributes:
        block: columns looked at in one step, a power of two of at most 16384.
        warps: warps a program.
        digit_bits: bits found in one pass over the row. Triton counts into 2**bits bins by looking at every bin for
            every 32 keys: more bits are fewer passes that cost more each.
    """

    block: int
    warps: int
    digit_bits: int


def portable_launch(rows: int, width: int) -> PortableLaunch:
    """The launch parameters for so many rows of this width."""
    most = 8192 if rows <= 132 else 4096  # rows that share a multiprocessor do better with smaller steps
    block = min(max(1 << (width - 1).bit_length(), 256), most)
    return PortableLaunch(block, warps=max(block // 512, 1), digit_bits=5)


MOST_BLOCKS = 16
"""How many blocks a cluster can have on Hopper; more than 8 are allowed there, if not everywhere."""

MOST_COLUMNS = 16384
"""How many columns a block of the cluster kernel takes at most: 16 in each of 1024 threads' registers."""

FEW_ROWS = ((8192, 2**31), (16384, 32), (32768, 32), (65536, 24), (131072, 16), (MOST_BLOCKS * MOST_COLUMNS, 8))
"""Up to which width, up to how many rows the kernel of clusters is the faster one (H100, k of 2048).

Short rows have one block and no cluster. Of wide rows, the registers of an H100 hold 30 * 65536 columns at a time: no
cluster crosses its groups of processors, and more of them wait for a second round.
"""


@dataclass(frozen=True, slots=True)
class ClusterLaunch:
    """Launch parameters of the kernel that gives each row a cluster of blocks.

    Attributes:
        blocks: blocks a cluster, a power of two of at most 16.
        columns: columns a block, a power of two of at most 16384; all blocks together hold a row.
        warps: warps a block; each takes 128 columns at least.
        registers: the most a thread may have, so that more blocks share a multiprocessor; 0 leaves it to the compiler.
        overlap: whether a launch may start while the kernel before it ends; it waits before it reads.
    """

    blocks: int
    columns: int
    warps: int
    registers: int = 0
    overlap: bool = True


def takes_clusters(rows: int, width: int) -> bool:
    """Whether the kernel of clusters is to be taken for this many rows of this width, not the one for many rows."""
    return any(width <= most_width and rows <= most_rows for most_width, most_rows in FEW_ROWS)


def cluster_launch(rows: int, width: int) -> ClusterLaunch:
    """The launch parameters for this many rows of this width, if clusters are taken."""
    size = max(4096, 1 << (width - 1).bit_length())
    if size == 4096 and rows > 256:
        return ClusterLaunch(1, 4096, 8, registers=64)
    if size == 8192:
        return ClusterLaunch(1, 8192, 16)
    columns = max(4096, size // MOST_BLOCKS)
    if size == 65536 and rows > 12:
        columns = 8192  # more such clusters fit at a time
    return ClusterLaunch(size // columns, columns, 32 if columns == MOST_COLUMNS else 16)
