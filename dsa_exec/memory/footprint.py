"""What a call allocates as a function of its rows, and how many rows a budget has room for. Whole bytes throughout."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple


class Footprint(NamedTuple):
    """The most that a call holds at once, beside its arguments and what its caller gives it to write into.

    Each backend of a logits op or of `topk` tells its own beside its code; those of a composite are added up.

    Attributes:
        fixed_bytes: whatever the rows.
        row_bytes: for each row.
        streamed: for work that is done some rows at a time: bytes of a row, and at most how many rows at a time.
        workspace_row_bytes: for each row, of logits that are written into a workspace which is kept between calls.
        own_row_bytes: for each row, of logits that a library allocates itself, its padding included.
        own_row_multiple: rows that the library rounds up to.
    """

    fixed_bytes: int = 0
    row_bytes: int = 0
    streamed: tuple[tuple[int, int], ...] = ()
    workspace_row_bytes: int = 0
    own_row_bytes: int = 0
    own_row_multiple: int = 1

    def __add__(self, other: Any) -> Footprint:
        """Of both at once. At most one of them has logits of its own."""
        return Footprint(
            self.fixed_bytes + other.fixed_bytes,
            self.row_bytes + other.row_bytes,
            self.streamed + other.streamed,
            self.workspace_row_bytes + other.workspace_row_bytes,
            self.own_row_bytes + other.own_row_bytes,
            max(self.own_row_multiple, other.own_row_multiple),
        )

    @property
    def logits_row_bytes(self) -> int:
        """What a row's logits take, wherever they are."""
        return self.workspace_row_bytes + self.own_row_bytes

    def bytes(self, rows: int) -> int:
        """The most that so many rows take."""
        fixed, row, streamed, workspace_row, own_row, multiple = self
        total = fixed + rows * (row + workspace_row)
        if own_row:
            total += -(-rows // multiple) * multiple * own_row
        for part, at_once in streamed:
            total += part * (rows if rows < at_once else at_once)
        return total

    def rows_within(self, budget_bytes: int) -> int:
        """How many rows take no more than the budget; 0 if not even one does.

        The most that do, but for the rows of a library, which are kept to its multiple.
        """
        fixed, row, streamed, workspace_row, own_row, multiple = self
        row += workspace_row + own_row
        if streamed:
            for part, _ in streamed:
                row += part
            rows = _fitting(budget_bytes - fixed, row)
            # Work that is full takes no more for more rows; what is full first is looked at first.
            for part, at_once in sorted(streamed, key=_rows_at_once):
                if at_once > rows:
                    break
                fixed, row = fixed + part * at_once, row - part
                rows = _fitting(budget_bytes - fixed, row)
        else:
            rows = _fitting(budget_bytes - fixed, row)
        if multiple == 1:
            return rows
        whole = rows // multiple * multiple
        while whole == 0 < rows and self.bytes(rows) > budget_bytes:
            rows -= 1
        return whole or rows


def _rows_at_once(streamed: tuple[int, int]) -> int:
    return streamed[1]


def _fitting(free_bytes: int, row_bytes: int) -> int:
    if free_bytes < 0:
        return 0
    return free_bytes // row_bytes if row_bytes else sys.maxsize


NOTHING = Footprint()
"""Of a call that allocates nothing beside its result."""
