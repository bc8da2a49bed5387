"""How the kernel of `topk` for many rows is launched: parameters with measured rules of thumb."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ManyRowsLaunch:
    """Launch parameters of the kernel that gives each row one block.

    Attributes:
        warps: warps a block: 8, 16 or 32.
        capacity: candidates of a row that fit in shared memory (8 bytes each), a multiple of 32 * warps that is at
            least k + 2048.
        sample: cells of a row that are looked at first, a multiple of 32 * warps, at most `cells`.
        vectors: how many loads of 16 bytes a thread has under way: 1 to 4.
        registers: the most a thread may have, so that more blocks share a multiprocessor; 0 leaves it to the compiler.
        cells: rows with no more cells than this stay in registers and need none of the above but the last; a multiple
            of 32 * warps, at most 512 * warps.
        rows_ahead: which row, counted from its own, a block brings closer before it searches its candidates: as many as
            there are blocks at a time.
        ahead_bytes: how much of that row, a multiple of 16.
        overlap: whether a launch may start while the kernel before it ends; it waits before it reads.
    """

    warps: int
    capacity: int
    sample: int
    vectors: int
    registers: int
    cells: int = 4096
    rows_ahead: int = 264
    ahead_bytes: int = 0
    overlap: bool = True


def many_rows_launch(rows: int, width: int, k: int) -> ManyRowsLaunch:
    """The launch parameters for a matrix of logits."""
    warps = 32 if rows <= 132 else 16
    capacity = 4096 if k <= 2048 and width <= 65536 else 6144
    return ManyRowsLaunch(warps, capacity, sample=4096, vectors=4, registers=64)
