"""The specification of `topk_merge`."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.ops.topk_merge import UNBOUND, Call, Merged, put_in_order

NO_KEY = -(2**31)
"""Below the key of every score."""


def _run(call: Call) -> Merged:
    keys, positions = _flat(call, range(len(call.candidates)))
    bounds = _bounds(keys, positions, call.k) if call.bounds is None else call.bounds
    keys, positions = _flat(call, call.kept_parts)
    least, last = bounds.long().unbind(1)
    kept = (keys > least[:, None]) | ((keys == least[:, None]) & (positions <= last[:, None]))
    kept &= positions >= 0
    counts = kept.sum(1).clamp(max=call.k).int()
    place = kept.cumsum(1) - 1
    picked = positions.new_full((len(positions), call.k + 1), -1)
    # One column more takes what is not kept.
    place = place.where(kept & (place < call.k), call.k)
    picked.scatter_(1, place, positions)
    picked = picked[:, : call.k]
    if call.keep is not None:
        picked = call.keep.split.to_local(picked)
        if call.slot_map is not None:
            picked = call.slot_map.slots(picked)
    picked = picked.to(torch.int32)
    return Merged(picked if call.in_order else put_in_order(picked), counts, bounds)


def _flat(call: Call, parts: range) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys of some parts' candidates and their positions, int64 [t, parts * c]; NO_KEY where there is no position."""
    told = call.candidates[parts.start : parts.stop]
    positions = told[:, :, 1].transpose(0, 1).flatten(1).long()
    scores = told[:, :, 0].transpose(0, 1).flatten(1).contiguous().view(torch.float32)
    bits = (scores.where(~scores.isnan(), -torch.inf) + 0.0).view(torch.int32).long()  # -0.0 becomes 0.0
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return keys.where(positions >= 0, NO_KEY), positions


def _bounds(keys: torch.Tensor, positions: torch.Tensor, k: int) -> torch.Tensor:
    """The bounds that leave k of each row, int32 [t, 2]."""
    # Key and position in one number, so that of equal scores the lowest position is the greatest.
    both = (keys << 32) + (UNBOUND - positions.clamp(min=0))
    both = both.where(positions >= 0, torch.iinfo(torch.int64).min)
    bounds = keys.new_full((len(keys), 2), UNBOUND)
    bounds[:, 0] = NO_KEY
    if keys.shape[1] >= k:
        kth = both.topk(k, dim=1).values[:, -1]
        least, last = kth >> 32, UNBOUND - (kth & 0xFFFFFFFF)
        is_full = kth > torch.iinfo(torch.int64).min
        tied = ((keys == least[:, None]) & (positions > last[:, None])).any(1)
        bounds[:, 0] = least.where(is_full, NO_KEY)
        bounds[:, 1] = last.where(is_full & tied, UNBOUND)
    return bounds.to(torch.int32)


BACKEND = Backend("torch", _run, rank=LAST)
