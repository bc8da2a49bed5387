"""The specification of `index_gather`."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.views import read_index_keys, request_slots
from dsa_exec.ops.index_gather import Call


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor | None]:
    cache = call.cache
    slots = request_slots(call.page_table, call.seq_lens, cache.layout.page_tokens, call.total_tokens, cache.slots)
    known = slots >= 0
    keys, scales = read_index_keys(cache.data, cache.layout, slots.where(known, 0))
    return _zeroed(keys, ~known), (None if scales is None else scales.where(known, 0.0))


def _zeroed(keys: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    as_bytes = keys.view(torch.uint8)  # not every device can mask e4m3; a zero is a zero in every dtype
    return as_bytes.masked_fill(rows[:, None], 0).view(keys.dtype)


BACKEND = Backend("torch", _run, rank=LAST)
