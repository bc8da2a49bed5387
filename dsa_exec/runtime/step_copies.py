"""What a step holds, copied to others: into every tensor that they have, with one kernel or one by one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from dsa_config import settings
from dsa_exec.core.errors import DsaError, ShapeError
from dsa_exec.core.hardware import capabilities, is_capturing
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import refuses_without_triton
from dsa_exec.ops.step_metadata.copies import CopyTable, Pair, copy_at_once, copy_one_by_one, copy_table
from dsa_exec.ops.step_metadata.launch import copy_launch
from dsa_exec.runtime.step import Step

_log = logging.getLogger("dsa_exec.runtime")
_said: set[str | None] = set()


class StepCopies:
    """The copies of one step into others of the same mode, shapes and schedule: made once, run as often as wanted.

    The addresses of all tensors stand in a table on the device. A captured graph that runs the copies reads the table:
    keep this object as long as the graph.

    Attributes:
        source: where the values come from.
        destinations: the steps that they go to.
        refusal: why one kernel cannot do it on this device, or None.
    """

    def __init__(self, source: Step, destinations: Sequence[Step]) -> None:
        """Pair the tensors, and put their addresses on the device, which waits for it.

        Raises:
            ArgumentError: a destination that is another kind of step than the source, or has other tensors.
            CopiesInCapture: a CUDA graph is being captured.
        """
        self.source = source
        self.destinations = tuple(destinations)
        device = source.page_table.device
        if is_capturing(device):
            raise CopiesInCapture
        unique = {
            (it.source.data_ptr(), it.destination.data_ptr(), it.source.shape): it
            for number, destination in enumerate(self.destinations)
            for it in _pairs(source, destination, number)
        }
        self._pairs = tuple(unique.values())
        hw = capabilities(device)
        self.refusal = refuses_without_triton(hw)
        self._is_missed = self.refusal is not None and hw.device_type != "cpu"
        self._table: CopyTable | None = None
        if self._pairs and self.refusal is None:
            self._table = copy_table(self._pairs, chosen_launch("step_metadata", "copies", copy_launch()))

    def run(self) -> None:
        """Copy everything to every destination, the way that `use_fused_metadata_copy` says now.

        On: with one launch, where Triton kernels can run. Whatever goes wrong with it is raised, and nothing else is
        tried. Where they cannot, and off: tensor by tensor. Both leave the same bits.
        """
        is_wanted = settings.use_fused_metadata_copy
        if is_wanted and self._table is not None:
            copy_at_once(self._table)
            return
        if is_wanted and self._is_missed and self.refusal not in _said:
            _said.add(self.refusal)
            _log.warning("the metadata of steps is copied tensor by tensor (%s)", self.refusal)
        copy_one_by_one(self._pairs)


class CopiesInCapture(DsaError, RuntimeError):
    """Copies were to be prepared while a CUDA graph is captured, which would need a transfer to the device."""

    def __init__(self) -> None:
        super().__init__("step copies: a CUDA graph is being captured; make them before, and run them within")


def _pairs(source: Step, destination: Step, number: int) -> Iterator[Pair]:
    name = f"destinations[{number}]"
    if destination.kind != source.kind:
        raise ShapeError("step copies", name, f"is a step of {destination.kind}", f"{source.kind}, as the source is")
    ours, theirs = source.tensors(), destination.tensors()
    if ours.keys() != theirs.keys():  # one that the source lacks would stay as it is
        raise ShapeError("step copies", name, f"has {', '.join(theirs)}", f"{', '.join(ours)}, as the source has")
    for place, tensor in ours.items():
        yield Pair(f"{name}.{place}", tensor, theirs[place])
