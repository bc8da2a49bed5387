"""Writes of rows into slots, some of which are none, without asking the device which.

Choosing the rows by a mask would make the host wait for their number, and no graph could be captured. All rows are
written here: those without a slot write what another row writes, to the same place, so that it does not matter which of
them comes last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class MaskedWrites:
    """Where rows go.

    Attributes:
        slots: int64 [t], a slot for every row: its own, or that of the first row that has one; 0 if none has.
        has_slot: bool [t], which rows have one.
        source: int64 [t], the row whose values each row writes: itself, or the first that has a slot.
    """

    slots: torch.Tensor
    has_slot: torch.Tensor
    source: torch.Tensor

    @classmethod
    def to(cls, slots: torch.Tensor, slot_count: int) -> MaskedWrites:
        """Writes of at least one row.

        Args:
            slots: int [t], t at least 1; below 0 or from `slot_count` on means none.
            slot_count: how many slots there are.
        """
        slots = slots.long()
        has_slot = (slots >= 0) & (slots < slot_count)
        first = has_slot.int().argmax()
        source = torch.arange(slots.shape[0], device=slots.device).where(has_slot, first)
        return cls(slots[source].where(has_slot.any(), 0), has_slot, source)

    def write(self, view: torch.Tensor, index: tuple[torch.Tensor, ...], values: torch.Tensor) -> None:
        """Write values where their rows have a slot. Gradients pass to those rows alone.

        Args:
            view: the memory.
            index: the places of `slots` in the view's first dimensions.
            values: [t, ...], of the view's dtype.
        """
        mask = self.has_slot.unflatten(0, (-1, *(1 for _ in values.shape[1:])))
        # Where no row has a slot, all write back what slot 0 holds.
        repeated = values.detach()[self.source].where(self.has_slot.any(), view.detach()[index])
        view[index] = values.where(mask, repeated)
