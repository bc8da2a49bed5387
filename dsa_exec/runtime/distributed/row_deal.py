"""Query rows dealt to ranks like cards, some neighbours at a time.

In a causal prefill later rows see more keys: a rank that has rows from everywhere has as much to do as any other, which
no cut into equal ranges gives, and nothing has to be known of the rows. Neighbours stay together since a program of the
scoring kernels takes up to eight of them, and reads the keys that any of them sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

NEIGHBOURS = 8
"""Rows that are dealt together: as many as a program of the scoring kernels takes at 32 heads."""


@dataclass(frozen=True, slots=True)
class RowDeal:
    """Which rows each rank has: blocks of neighbours by turns, and of what is left then, equal ranges.

    Attributes:
        rows: how many there are.
        world: ranks.
        block: rows dealt together, a multiple of `unit`.
        unit: rows that are never parted, of which there is a whole number.
    """

    rows: int
    world: int
    block: int
    unit: int = 1

    @property
    def dealt(self) -> int:
        """How many rows each rank has in whole blocks."""
        return self.rows // (self.world * self.block) * self.block

    @property
    def most(self) -> int:
        """The most rows that a rank has: those of the first."""
        return self.count(0)

    def count(self, rank: int) -> int:
        """How many rows a rank has."""
        return self.dealt + len(self._rest(rank))

    def times(self, each: int) -> RowDeal:
        """The deal of what there are so many of in each row, and that stay together."""
        return RowDeal(self.rows * each, self.world, self.block * each, self.unit * each)

    def share(self, values: torch.Tensor, rank: int) -> torch.Tensor:
        """A rank's rows, in their order and contiguous: [count, ...] of [rows, ...]."""
        shared = values.new_empty(self.count(rank), *values.shape[1:])
        if self.dealt:
            blocks = values[: self.dealt * self.world].unflatten(0, (-1, self.world, self.block))
            shared[: self.dealt].unflatten(0, (-1, self.block)).copy_(blocks[:, rank])
        if rest := self._rest(rank):
            shared[self.dealt :].copy_(values[rest.start : rest.stop])
        return shared

    def put_back(self, shares: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Write all ranks' rows to their places.

        Args:
            shares: [world, most, ...]; what is beyond a rank's count is not looked at.
            out: [rows, ...], of any strides.

        Returns:
            `out`.
        """
        dealt, first = self.dealt, self.dealt * self.world
        if dealt:
            blocks = out[:first].unflatten(0, (-1, self.world, self.block))
            blocks.copy_(shares[:, :dealt].unflatten(1, (-1, self.block)).transpose(0, 1))
        if first < self.rows:
            # Of the rest all ranks have as much as the first, up to one that has less and those that have none.
            out[first:].copy_(shares[:, dealt:].flatten(0, 1)[: self.rows - first])
        return out

    def _rest(self, rank: int) -> range:
        """A rank's rows after all whole rounds."""
        first = self.dealt * self.world
        each = -(-(self.rows - first) // (self.world * self.unit)) * self.unit
        start = first + rank * each
        return range(min(start, self.rows), min(start + each, self.rows))
