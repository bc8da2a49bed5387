"""The specification of `paged_mqa_logits`."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.scoring import index_scores
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.views import SlotMap, read_index_keys
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.paged_mqa_logits import Call


def _run(call: Call) -> torch.Tensor:
    b, n, _, _ = call.q.shape
    layout = call.cache.layout
    logits = call.q.new_empty(b * n, call.max_context_len, dtype=torch.float32) if call.out is None else call.out
    positions = torch.arange(call.max_context_len, device=call.q.device)
    for request in range(b):  # a request at a time: the keys of all of them take b times the memory
        rows = slice(request * n, (request + 1) * n)
        table = SlotMap(call.page_table[request, None], layout.page_tokens, positions.new_zeros(1), call.cache.slots)
        slots = table.slots(positions[None])[0]
        known = slots >= 0
        keys, scales = read_index_keys(call.cache.data, layout, slots.where(known, 0))
        index_scores(call.q[request], keys, scales, call.head_weights[rows], logits[rows])
        hidden = ~known | (positions >= call.context_lens[request, :, None])
        logits[rows].masked_fill_(hidden, -torch.inf)
    return logits


SLOT_BYTES = 88
"""What a position takes on its way to a slot of a page: numbers of 64 bits and masks."""


def _footprint(call: Call, _: Capabilities) -> Footprint:
    n, d = call.q.shape[1], call.q.shape[3]
    data, width = call.cache.data, call.max_context_len
    # Of one request at a time: the slots of its positions, its keys as they are and in f32; for each of its rows one
    # head's queries and products in f32, later masks.
    keys = width * (d * (data.element_size() + 4) + 4)
    return Footprint(fixed_bytes=width * SLOT_BYTES + keys + n * (width + d) * 4)


BACKEND = Backend("torch", _run, rank=LAST, footprint=_footprint)
