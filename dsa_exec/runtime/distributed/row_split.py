"""Which tokens of a prefill each context-parallel rank has, where all ranks have the keys of all tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import DtypeError, RangeError, ShapeError
from dsa_exec.core.hardware import is_capturing
from dsa_exec.runtime.distributed.gathering import gather_in_place
from dsa_exec.runtime.distributed.ranks import Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

NAME = "RowSplit"

Order = Literal["in_sequence", "round_robin"]


@dataclass(frozen=True, slots=True)
class RowSplit:
    """The rows of some requests, one request after the other, dealt to ranks.

    `in_sequence`: each request is cut into twice as many pieces as there are ranks, and rank r has the r-th from the
    front and the r-th from the end. A later token sees more keys, and so all have as much to do. Its rows are two runs
    of neighbours a request. `round_robin`: the rows of all requests, each to the next rank.

    Nothing has to divide: pieces differ by one token at most, and a rank may have none. A row takes its window along
    (`take(starts)`, `take(ends)`), so that requests of any lengths may share a batch.

    Attributes:
        lens: rows of each request.
        world: ranks.
        order: how rows are dealt.
    """

    lens: Sequence[int]
    world: int
    order: Order = "in_sequence"

    def __post_init__(self) -> None:
        object.__setattr__(self, "lens", tuple(self.lens))
        for nth, length in enumerate(self.lens):
            if not isinstance(length, int) or isinstance(length, bool) or length < 0:
                raise RangeError(NAME, f"lens[{nth}]", f"is {length!r}", "an integer of at least 0")
        if not isinstance(self.world, int) or isinstance(self.world, bool) or self.world < 1:
            raise RangeError(NAME, "world", f"is {self.world!r}", "an integer of at least 1")
        if self.order not in ("in_sequence", "round_robin"):
            raise RangeError(NAME, "order", f"is {self.order!r}", "'in_sequence' or 'round_robin'")

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(self.lens)

    def counts(self) -> tuple[int, ...]:
        """How many each rank has."""
        return tuple(len(rows) for rows in _dealt(self))

    def take(self, values: torch.Tensor, rank: int) -> torch.Tensor:
        """A rank's rows, in their order: [count, ...] of [rows, ...].

        Raises:
            ArgumentError: no tensor, or not one value for each row; a rank that there is not.
        """
        _check_rows(values, self.rows, "the sum of lens")
        Arguments(NAME).number(rank, "rank", low=0, high=self.world - 1)
        return values[_on_device(_dealt(self)[rank], values.device)]

    def join_in_group(self, values: torch.Tensor, *, group: ProcessGroup | None = None) -> torch.Tensor:
        """The rows of all ranks, in their order: [rows, ...] of this rank's [count, ...]. No gradient passes.

        One collective.

        Raises:
            ArgumentError: not as many rows as this rank has, or a group of another number of ranks; or a CUDA graph is
                being captured, and which rows those are comes from the host.
            NoProcessGroup: torch.distributed is not initialised, or this process is not of the group.
            RankLost: not all ranks took part within the timeout of the group, or in an earlier call.
        """
        ranks = Ranks.of(group, f"{NAME}.join_in_group()")
        place, counts = ranks.place, self.counts()
        if len(ranks.ranks) != self.world:
            raise RangeError(NAME, "world", f"is {self.world}", f"{len(ranks.ranks)}, the ranks of the group")
        _check_rows(values, counts[place], f"those of rank {place}")
        most = max(counts)
        with torch.no_grad():
            places = _on_device(_places(self), values.device)
            shares = values.new_empty(self.world, most, *values.shape[1:])
            shares[place, : counts[place]] = values
            shares[place, counts[place] :] = 0
            if self.world > 1 and most:
                with ranks.together():
                    gather_in_place(shares, place, ranks.group)
            return shares.flatten(0, 1)[places]


def _check_rows(values: torch.Tensor, rows: int, which: str) -> None:
    if not isinstance(values, torch.Tensor):
        raise DtypeError(NAME, "values", f"is {type(values).__name__}", "a tensor [rows, ...]")
    if values.ndim == 0 or values.shape[0] != rows:
        raise ShapeError(NAME, "values", f"has shape {list(values.shape)}", f"{rows} rows, {which}")


def _on_device(rows: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Numbers of rows where they are used. A copy to a device does not wait for it."""
    if is_capturing(device):
        raise RangeError(NAME, "rows", "are dealt within a CUDA graph", "rows that are dealt out before it is captured")
    return rows if device.type == "cpu" else rows.pin_memory().to(device, non_blocking=True)


@functools.lru_cache(maxsize=8)  # all layers of a batch ask for the same
def _dealt(split: RowSplit) -> tuple[torch.Tensor, ...]:
    """The rows of each rank, ascending: int64."""
    if split.order == "round_robin":
        return tuple(torch.arange(rank, split.rows, split.world) for rank in range(split.world))
    pieces = 2 * split.world
    dealt: list[list[torch.Tensor]] = [[] for _ in range(split.world)]
    first = 0
    for length in split.lens:
        cuts = [first + length * nth // pieces for nth in range(pieces + 1)]
        for rank, rows in enumerate(dealt):
            rows += [torch.arange(cuts[nth], cuts[nth + 1]) for nth in (rank, pieces - 1 - rank)]
        first += length
    return tuple(torch.cat(rows) if rows else torch.arange(0) for rows in dealt)


@functools.lru_cache(maxsize=8)
def _places(split: RowSplit) -> torch.Tensor:
    """Where each row is among those of all ranks, each padded to as many as any has: int64 [rows]."""
    dealt = _dealt(split)
    most = max(len(rows) for rows in dealt)
    places = torch.empty(split.rows, dtype=torch.int64)
    for rank, rows in enumerate(dealt):
        places[rows] = torch.arange(rank * most, rank * most + len(rows))
    return places
