"""`mqa_logits` by aiter: e4m3 keys with f32 scales.

It writes into a tensor of its own. That is the result where no `out` is given and it is small enough; else its logits
are copied, some rows at a time.
"""

from __future__ import annotations

import torch

from dsa_exec.core.aiter_functions import MQA_LOGITS, RANK, READS, aiter_function, declines_aiter, refuses_aiter, takes
from dsa_exec.core.aiter_scoring import MOST_BYTES, adapts_queries, operand_row_bytes, operands, refuses_queries
from dsa_exec.core.fnuz import halves_as_fnuz, reads_fnuz
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.head_padding import lies_together
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk
from dsa_exec.ops.mqa_logits import Call

SCRATCH_BYTES = 256 * 2**20
"""What it may hold beside `out`; a row takes what it takes."""

ALIGNED_KEYS = 256
"""Its rows are so many logits long, or a multiple."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    sentence = refuses_aiter(hw, MQA_LOGITS) or refuses_gradients(call) or refuses_queries(call.q, hw)
    if sentence is not None:
        return sentence
    if (keys := call.keys.shape[0]) and _row_bytes(keys) > MOST_BYTES:
        return f"{keys} keys: a row of logits has {_row_bytes(keys)} bytes, aiter takes up to {MOST_BYTES}"
    if not lies_together(call.keys):
        return "keys are not contiguous, or begin beside a multiple of 16 bytes; aiter copies 16 bytes at a time"
    return None


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_aiter(hw)


def _adapts(call: Call, hw: Capabilities) -> str | None:
    return adapts_queries(call.q, hw)


def _run(call: Call) -> torch.Tensor:
    rows, s, out = call.q.shape[0], call.keys.shape[0], call.out
    if rows == 0 or s == 0:
        return call.q.new_empty(rows, s, dtype=torch.float32) if out is None else out
    assert call.scales is not None
    hw = capabilities(call.q.device)
    score = aiter_function(hw, MQA_LOGITS)
    # Builds that do not ask always clean.
    more = {} if call.clean or not takes(score, "clean_logits") else {"clean_logits": False}
    starts = call.starts.clamp(0, s)
    ends = torch.maximum(call.ends.clamp(max=s), starts)
    keys = halves_as_fnuz(call.keys) if reads_fnuz(hw.arch) else call.keys
    most = MOST_BYTES if out is None else SCRATCH_BYTES
    at_once = rows_per_chunk(rows, _row_bytes(s), min(most, MOST_BYTES))
    if out is None and at_once < rows:
        out = call.q.new_empty(rows, s, dtype=torch.float32)
    with torch.cuda.device_of(call.q):
        for part in row_chunks(rows, at_once):
            q, weights = operands(call.q[part], call.head_weights[part], hw)
            logits: torch.Tensor = score(q, keys, call.scales, weights, starts[part], ends[part], **more)
            if out is None:
                return logits
            out[part].copy_(logits)
    assert out is not None
    return out


def _footprint(call: Call, hw: Capabilities) -> Footprint:
    s, d = call.keys.shape
    keys = 2 * s * d if reads_fnuz(hw.arch) else 0  # as e4m3fnuz, and a mask
    return Footprint(keys, operand_row_bytes(call.q, hw) + 3 * 4, own_row_bytes=_row_bytes(s))


def _row_bytes(keys: int) -> int:
    return -(-keys // ALIGNED_KEYS) * ALIGNED_KEYS * 4


BACKEND = Backend("aiter", _run, _refuses, _declines, rank=RANK, adapts=_adapts, reads=READS, footprint=_footprint)
