"""The specification of `topk_candidates`."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.topk_candidates import Call

POSITION_BYTES = 48
"""What a position takes at the worst moment."""


def _run(call: Call) -> torch.Tensor:
    rows, width = call.logits.shape
    starts = 0 if call.row_starts is None else call.row_starts.long()[:, None]
    columns = call.picked.long() + starts
    known = (call.picked >= 0) & (columns >= 0) & (columns < width)
    told = call.picked.new_empty(rows, 2, call.picked.shape[1])
    if width:
        told[:, 0] = call.logits.gather(1, columns.where(known, 0)).view(torch.int32)
    positions = call.part.split.to_global(call.picked, call.part.part)
    told[:, 1] = positions.where(known & (positions < 2**31 - 1), -1)
    return told


def _footprint(call: Call, _: object) -> Footprint:
    return Footprint(row_bytes=call.picked.shape[1] * POSITION_BYTES)


BACKEND = Backend("torch", _run, rank=LAST, footprint=_footprint)
