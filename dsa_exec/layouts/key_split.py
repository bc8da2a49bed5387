"""How the keys of a request are dealt to the parts of a context-parallel group, and which position is where."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError, ShapeError, StrideError

MOST_PARTS = 1024


@dataclass(frozen=True, slots=True, eq=False)
class KeySplit:
    """Keys dealt in blocks, to each part in turn: position p is of part `p // block % parts`.

    With blocks as long as a part's share of the context, each part has one: a contiguous split (`contiguous`). With
    blocks of a token or a page, parts stay even while a context grows: an interleaved split. Where the length is no
    multiple, some parts have less, or nothing.

    Attributes:
        parts: how many, 1 to 1024.
        block: tokens in a row that stay together, at least 1; or int32 [t], of each query row's request.
    """

    parts: int
    block: int | torch.Tensor

    def __post_init__(self) -> None:
        for name, number, most in (("parts", self.parts, MOST_PARTS), ("block", self.block, 2**31 - 1)):
            if name == "block" and isinstance(number, torch.Tensor):
                if number.ndim != 1 or number.dtype != torch.int32:
                    came = f"is {str(number.dtype).removeprefix('torch.')} {list(number.shape)}"
                    raise RangeError("KeySplit", name, came, "an integer, or int32 [t]")
            elif not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= most:
                raise RangeError("KeySplit", name, f"is {number!r}", f"an integer from 1 to {most}")

    @classmethod
    def contiguous(cls, parts: int, tokens: int | torch.Tensor) -> KeySplit:
        """One block for each part: the first has the first tokens, as many as all but the last.

        Args:
            parts: how many.
            tokens: of the whole request; or int32 [t], of each query row's request.
        """
        cls(parts, 1)  # so that it is told what parts may be
        if isinstance(tokens, torch.Tensor):
            block = ((tokens.long() + parts - 1) // parts).clamp(min=1).int()
            return cls(parts, block)
        return cls(parts, max(1, -(-tokens // parts)))

    def of_rows(self, rows: slice) -> KeySplit:
        """The same for some rows."""
        if isinstance(self.block, int):
            return self
        return dataclasses.replace(self, block=self.block[rows])

    def part_of(self, positions: torch.Tensor) -> torch.Tensor:
        """Which part has each position: int64, of the shape of `positions`, int [t, ...], all at least 0."""
        return positions.long() // self._block(positions) % self.parts

    def count_in(self, lens: torch.Tensor, part: int) -> torch.Tensor:
        """How many of the first `lens` positions a part has: int32, of int [t, ...]. Less than 0 counts as 0."""
        block, lens = self._block(lens), lens.long().clamp(min=0)
        rounds = lens // (block * self.parts)
        rest = (lens - rounds * block * self.parts - part * block).clamp(min=0)
        return (rounds * block + rest.clamp(max=block)).int()

    def to_global(self, places: torch.Tensor, part: int) -> torch.Tensor:
        """Positions in the request of a part's own: int64 [t, ...] of int [t, ...]; what is negative stays as it is."""
        places, block = places.long(), self._block(places)
        positions = places // block * (block * self.parts) + part * block + places % block
        return positions.where(places >= 0, places)

    def to_local(self, positions: torch.Tensor) -> torch.Tensor:
        """Where in its part each position is: int64 [t, ...] of int [t, ...]; what is negative stays as it is."""
        positions, block = positions.long(), self._block(positions)
        places = positions // (block * self.parts) * block + positions % block
        return places.where(positions >= 0, positions)

    def _block(self, of_rows: torch.Tensor) -> torch.Tensor | int:
        """The block of each row, to go with a tensor [t, ...], or [b, n] of the rows of requests."""
        if isinstance(self.block, int):
            return self.block
        if of_rows.ndim == 2 and len(of_rows) != len(self.block) and of_rows.numel() == len(self.block):
            return self.block.long().view_as(of_rows)
        return self.block.long().reshape(-1, *[1] * (of_rows.ndim - 1))


@dataclass(frozen=True, slots=True, eq=False)
class KeyPart:
    """One part of a split.

    Attributes:
        split: of which it is.
        part: which, from 0.
    """

    split: KeySplit
    part: int

    def __post_init__(self) -> None:
        part, parts = self.part, self.split.parts
        if not isinstance(part, int) or isinstance(part, bool) or not 0 <= part < parts:
            raise RangeError("KeyPart", "part", f"is {part!r}", f"an integer from 0 to {parts - 1}, of {parts} parts")

    def of_rows(self, rows: slice) -> KeyPart:
        """The same for some rows."""
        return KeyPart(self.split.of_rows(rows), self.part)


def check_part(args: Arguments, part: KeyPart, name: str, rows: int) -> None:
    """Check an argument that is a part of the keys of so many rows.

    Raises:
        ArgumentError: it is none, or has blocks of other rows, elsewhere, or (on the CPU, and elsewhere under
            `debug_check_indices`) of less than 1.
    """
    args.kind(part, name, KeyPart)
    block, name = part.split.block, f"{name}.split.block"
    if isinstance(block, torch.Tensor):
        args.device(block, name)
        if len(block) != rows:
            raise ShapeError(args.op, name, f"has {len(block)} rows", f"{rows}")
        if rows > 1 and block.stride(0) != 1:
            came = f"has strides {list(block.stride())}"
            raise StrideError(args.op, name, came, "a last dimension with stride 1 (call .contiguous())")
        args.values(block, name, low=1, high=2**31 - 1, on_accelerators=settings.debug_check_indices)
