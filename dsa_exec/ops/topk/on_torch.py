"""The specification of `topk`."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.ops.topk import Call


def _run(call: Call) -> torch.Tensor:
    t, width = call.logits.shape
    lengths = call.lengths.long()  # a hostile length must not overflow when the start is added
    starts = lengths.new_zeros(t) if call.row_starts is None else call.row_starts.long()
    columns = torch.arange(width, device=call.logits.device)
    inside = (columns >= starts[:, None]) & (columns < (starts + lengths)[:, None])
    chosen = _best(call.logits, inside, call.k)
    # Ascending, by the rank of each chosen column; what is not chosen goes to a last column that is cut off.
    rank = (chosen.cumsum(1) - 1).where(chosen, call.k)
    relative = (columns - starts[:, None]).where(chosen, -1)
    positions = torch.full((t, call.k + 1), -1, dtype=torch.int64, device=call.logits.device)
    positions = positions.scatter_(1, rank, relative)[:, : call.k]
    if call.slot_map is not None:
        positions = call.slot_map.slots(positions)
    return positions.to(torch.int32).contiguous()


def _best(logits: torch.Tensor, inside: torch.Tensor, k: int) -> torch.Tensor:
    """Which cells are the k best of those inside: all above the k-th value, and of those equal to it the first ones."""
    if logits.shape[1] <= k:
        return inside
    scores = logits.where(inside & ~logits.isnan(), -torch.inf)
    threshold = scores.topk(k, dim=1).values[:, -1:]
    above = inside & (scores > threshold)
    equal = inside & (scores == threshold)
    return above | (equal & (equal.cumsum(1) <= k - above.sum(1, keepdim=True)))


BACKEND = Backend("torch", _run, rank=LAST)
