"""The specification of `topk`."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk, rows_that_fit
from dsa_exec.ops.topk import Call

SCRATCH_BYTES = 64 * 2**20
"""How much is worked on at once, so that what comes on top of the logits is bounded."""

CELL_BYTES = 32
"""What one cell takes at the worst moment: its masked score and what sorting adds, masks and a count."""

PICK_BYTES = 64
"""What one picked position takes at the worst moment: 64-bit numbers, on its way to a slot."""


def _run(call: Call) -> torch.Tensor:
    rows, width = call.logits.shape
    picked = torch.full((rows, call.k), -1, dtype=torch.int32, device=call.logits.device)
    most = min(call.k, width)
    at_once = rows_per_chunk(rows, _row_bytes(width, most), SCRATCH_BYTES)
    for part in row_chunks(rows, at_once):
        picked[part, :most] = _pick(call, part, most)
    return picked


def _row_bytes(width: int, most: int) -> int:
    return width * CELL_BYTES + most * PICK_BYTES


def _footprint(call: Call, _: Capabilities) -> Footprint:
    width = call.logits.shape[1]
    row = _row_bytes(width, min(call.k, width))
    return Footprint(row_bytes=call.k * 4, streamed=((row, rows_that_fit(row, SCRATCH_BYTES)),))


def _pick(call: Call, part: slice, most: int) -> torch.Tensor:
    logits, lengths = call.logits[part], call.lengths[part, None].long()
    width = logits.shape[1]
    starts = lengths.new_zeros(lengths.shape) if call.row_starts is None else call.row_starts[part, None].long()
    ends = (starts + lengths).clamp(0, width)  # in int64: a hostile length must not overflow, nor what is made of it
    columns = torch.arange(width, dtype=torch.int32, device=logits.device)
    inside = (columns >= starts.to(torch.int32)) & (columns < ends.to(torch.int32))
    # The n-th chosen column is the first where n are counted; where there are fewer, the search ends beyond the last.
    counted = _best(logits, inside, call.k).cumsum(1, dtype=torch.int32)
    wanted = torch.arange(1, most + 1, dtype=torch.int32, device=logits.device).expand(logits.shape[0], most)
    chosen = torch.searchsorted(counted, wanted.contiguous(), out_int32=True)
    positions = (chosen - starts).where(chosen < width, -1)
    if call.slot_map is not None:
        positions = call.slot_map.of_rows(part).slots(positions)
    return positions.to(torch.int32)


def _best(logits: torch.Tensor, inside: torch.Tensor, k: int) -> torch.Tensor:
    """Which cells are the k best of those inside: all above the k-th value, and of those equal to it the first ones."""
    if logits.shape[1] <= k:
        return inside
    scores = logits.where(inside & ~logits.isnan(), -torch.inf)
    threshold = scores.topk(k, dim=1).values[:, -1:]
    above = inside & (scores > threshold)
    equal = inside & (scores == threshold)
    still_wanted = k - above.sum(1, keepdim=True, dtype=torch.int32)
    return above | (equal & (equal.cumsum(1, dtype=torch.int32) <= still_wanted))


BACKEND = Backend("torch", _run, rank=LAST, footprint=_footprint)
