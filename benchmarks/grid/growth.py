"""Whether the cost of a prefill grows as the pairs of a query and a key that it sees, and its memory not at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.grid.record import GridRow
from benchmarks.ops.index_select_work import visible

FROM, BASE = 16 * 1024, 64 * 1024
MOST_OFF = 0.1
MOST_MIB = 1.0
"""Memory is constant where it differs by no more: sizes are rounded by torch's allocator."""


class Growth(NamedTuple):
    """Prefills of as many rows over ever longer contexts.

    Attributes:
        rows: queries.
        heads: of the index.
        relative: by context from 16384 on, the time of a pair over that of a pair at 65536.
        extra_mib: by context, what a call takes of memory.
    """

    rows: int
    heads: int
    relative: dict[int, float]
    extra_mib: dict[int, float]

    @property
    def is_linear(self) -> bool:
        """Whether a pair takes as long everywhere, within a tenth."""
        return all(abs(it - 1) <= MOST_OFF for it in self.relative.values())

    @property
    def is_flat(self) -> bool:
        """Whether the memory does not grow."""
        found = self.extra_mib.values()
        return not found or max(found) - min(found) <= MOST_MIB


def growth(rows: Sequence[GridRow]) -> list[Growth]:
    """One for each number of rows and heads whose context of 65536 was measured."""
    lines: dict[tuple[int, int], list[GridRow]] = defaultdict(list)
    for row in rows:
        if (row.op, row.phase) == ("index_select", "prefill") and row.ours is not None and row.context >= FROM:
            lines[row.rows, row.heads].append(row)
    found = []
    for (count, heads), of_line in lines.items():
        pair_us = {it.context: it.ours.median_us / visible(count, it.context) for it in of_line if it.ours is not None}
        extra = {it.context: it.ours.extra_mib for it in of_line if it.ours is not None}
        if (base := pair_us.get(BASE)) is not None:
            relative = {context: us / base for context, us in pair_us.items()}
            known = {context: it for context, it in extra.items() if it is not None}
            found.append(Growth(count, heads, relative, known))
    return found
