"""The specification of `mqa_logits`."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.scoring import index_scores
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.mqa_logits import Call


def _run(call: Call) -> torch.Tensor:
    t, s = call.q.shape[0], call.keys.shape[0]
    logits = call.q.new_empty(t, s, dtype=torch.float32) if call.out is None else call.out
    index_scores(call.q, call.keys, call.scales, call.head_weights, logits)
    positions = torch.arange(s, device=logits.device)
    hidden = (positions < call.starts[:, None]) | (positions >= call.ends[:, None])
    return logits.masked_fill_(hidden, -torch.inf)


def _footprint(call: Call, _: Capabilities) -> Footprint:
    s, d = call.keys.shape
    # Keys in f32 and their positions; for a row one head's queries and products in f32, later its masks of a byte each.
    return Footprint(fixed_bytes=s * (d * 4 + 8), row_bytes=s * 4 + d * 4)


BACKEND = Backend("torch", _run, rank=LAST, footprint=_footprint)
