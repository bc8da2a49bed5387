"""Copies of index tensors into others, all with one launch: what is to be copied stands in a table on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dsa_exec.core.errors import DeviceError, DtypeError, ShapeError, StrideError
from dsa_exec.ops.step_metadata.launch import CopyLaunch

NUMBERS = 7
"""Of an entry: two addresses, columns, two distances of rows, the first program, and programs a row."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A tensor and one of the same shape that its values go to.

    Attributes:
        name: what the caller calls it.
        source: int32, of one or two dimensions.
        destination: the same, elsewhere in memory.
    """

    name: str
    source: torch.Tensor
    destination: torch.Tensor

    def __post_init__(self) -> None:
        """Check that they fit each other.

        Raises:
            DtypeError, ShapeError, StrideError, DeviceError: they do not.
        """
        source, destination = self.source, self.destination
        for tensor in (source, destination):
            if tensor.dtype != torch.int32:
                raise DtypeError("step copies", self.name, f"is {tensor.dtype}", "torch.int32")
            if not 1 <= tensor.ndim <= 2 or (tensor.shape[-1] > 1 and tensor.stride(-1) != 1):
                came = f"has shape {list(tensor.shape)} and strides {list(tensor.stride())}"
                raise StrideError("step copies", self.name, came, "one or two dimensions, the last with stride 1")
        if destination.ndim == 2 and destination.shape[0] > 1 and destination.stride(0) < destination.shape[1]:
            came = f"of a destination has strides {list(destination.stride())}"
            raise StrideError("step copies", self.name, came, "rows that do not overlap")
        if source.shape != destination.shape:
            came = f"of a destination has shape {list(destination.shape)}"
            raise ShapeError("step copies", self.name, came, f"{list(source.shape)}, as the source has it")
        if source.device != destination.device:
            raise DeviceError(
                "step copies", self.name, f"of a destination is on {destination.device}", f"{source.device}"
            )


@dataclass(frozen=True, slots=True)
class CopyTable:
    """What one launch copies. Addresses stand in it: it keeps the tensors alive, and a graph that uses it needs it.

    Attributes:
        pairs: the tensors.
        entries: int64 [pairs that have elements, 7].
        entry_of_program: int32 [programs], which entry each program works at.
        launch: the launch parameters that programs were counted with.
    """

    pairs: tuple[Pair, ...]
    entries: torch.Tensor
    entry_of_program: torch.Tensor
    launch: CopyLaunch


def copy_table(pairs: Sequence[Pair], launch: CopyLaunch) -> CopyTable:
    """Make the table of some copies, at the price of a transfer to the device.

    Args:
        pairs: what is to be copied, at least one pair, all on one device.
        launch: the launch parameters.
    """
    entries, programs_of = [], []
    first = 0
    for pair in pairs:
        if pair.source.numel() == 0:
            continue
        rows, columns, *apart = _rows_of(pair)
        pieces = -(-columns // launch.elements)
        addresses = pair.source.data_ptr(), pair.destination.data_ptr()
        entries.append([*addresses, columns, *apart, first, pieces])
        programs_of.append(rows * pieces)
        first += rows * pieces
    entry_of_program = torch.arange(len(entries)).repeat_interleave(torch.tensor(programs_of, dtype=torch.int64))
    device = pairs[0].source.device
    return CopyTable(
        tuple(pairs),
        torch.tensor(entries, dtype=torch.int64).reshape(len(entries), NUMBERS).to(device),
        entry_of_program.to(torch.int32).to(device),
        launch,
    )


def _rows_of(pair: Pair) -> tuple[int, int, int, int]:
    """Rows, columns, and how far apart the rows of source and destination begin. What has no gaps is one row."""
    source, destination = pair.source, pair.destination
    if source.is_contiguous() and destination.is_contiguous():
        return 1, source.numel(), 0, 0
    return source.shape[0], source.shape[1], source.stride(0), destination.stride(0)


def copy_at_once(table: CopyTable) -> None:
    """Copy all of it with one launch. Whatever goes wrong is raised."""
    if table.entry_of_program.shape[0] == 0:
        return
    from dsa_exec.ops.step_metadata.kernels.copies import launch_copies

    launch_copies(table)


def copy_one_by_one(pairs: Sequence[Pair]) -> None:
    """Copy each pair by itself."""
    for pair in pairs:
        pair.destination.copy_(pair.source)
