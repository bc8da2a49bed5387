"""`topk` by aiter: its stable kernel, which picks the same positions every time, ascending, of equals the lowest.

It orders numbers by their bits: NaN above all, and 0 above -0. Rows are copied without either, some at a time. Whether
it numbers what it picks from the row's window or from the row is not the same in all that is written about it: a row
whose answer is known goes along and tells.
"""

from __future__ import annotations

import torch

from dsa_exec.core.aiter_functions import RANK, READS, TOPK, aiter_function, declines_aiter, refuses_aiter
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.dispatch.backend import Backend
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk, rows_that_fit
from dsa_exec.ops.topk import Call

SCRATCH_BYTES = 256 * 2**20
"""What copies of rows may take; a row takes what it takes."""

PICK_BYTES = 68
"""What one picked position takes at the worst moment: 64-bit numbers, on its way to a slot."""

ROW_BYTES = 64
"""What a row's window takes, in 64-bit numbers."""

ALIGNED_CELLS = 4
"""Copied rows begin where loads of 16 bytes may."""


def _refuses(_: Call, hw: Capabilities) -> str | None:
    return refuses_aiter(hw, TOPK, "k", "stable")


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_aiter(hw)


def _run(call: Call) -> torch.Tensor:
    rows, width = call.logits.shape
    picked = torch.full((rows, call.k), -1, dtype=torch.int32, device=call.logits.device)
    if rows == 0 or width == 0:
        return picked
    cells = _cells(width)
    at_once = rows_per_chunk(rows, cells * 4, SCRATCH_BYTES)
    scratch = torch.zeros(at_once + 1, cells, dtype=torch.float32, device=picked.device)
    with torch.cuda.device_of(call.logits):
        for part in row_chunks(rows, at_once):
            picked[part] = _pick(call, part, scratch)
    return picked


def _cells(width: int) -> int:
    """Of a copied row."""
    return -(-max(width, 2) // ALIGNED_CELLS) * ALIGNED_CELLS


def _footprint(call: Call, _: Capabilities) -> Footprint:
    copied = _cells(call.logits.shape[1]) * 4
    picks = call.k * PICK_BYTES + ROW_BYTES
    # One more row, the one that tells.
    streamed = (copied + picks, rows_that_fit(copied, SCRATCH_BYTES))
    return Footprint(copied + picks, call.k * 4, streamed=(streamed,))


def _pick(call: Call, part: slice, scratch: torch.Tensor) -> torch.Tensor:
    logits = call.logits[part]
    count, width = logits.shape
    rows = torch.add(logits, 0.0, out=scratch[:count, :width])  # of -0 and 0 it makes 0
    rows.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    lengths = call.lengths[part].long()  # in int64: a hostile length must not overflow
    starts = torch.zeros_like(lengths) if call.row_starts is None else call.row_starts[part].long()
    first = starts.clamp(0, width)
    last = torch.maximum((starts + lengths).clamp(max=width), first)
    # The row that tells: its window is cell 1 alone, which is 0 from the window on and 1 from the row on.
    firsts, lasts = (torch.cat([it, it.new_full((1,), told)]).int() for it, told in ((first, 1), (last, 2)))
    picks = torch.empty(count + 1, call.k, dtype=torch.int32, device=logits.device)
    select = aiter_function(capabilities(logits.device), TOPK)
    strides = scratch.stride(0), scratch.stride(1)
    select(scratch[: count + 1], firsts, lasts, picks, None, count + 1, *strides, k=call.k, stable=True)
    is_from_row, chosen = picks[-1, 0], picks[:count]
    positions = (chosen + first[:, None] * (1 - is_from_row) - starts[:, None]).where(chosen >= 0, -1)
    if call.slot_map is None:
        return positions.to(torch.int32)
    return call.slot_map.of_rows(part).slots(positions).to(torch.int32)


BACKEND = Backend("aiter", _run, _refuses, _declines, rank=RANK, reads=READS, footprint=_footprint)
