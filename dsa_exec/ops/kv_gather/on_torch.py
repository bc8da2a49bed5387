"""The specification of `kv_gather`."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.views import read_mla_tokens, request_slots
from dsa_exec.ops.kv_gather import Call


def _run(call: Call) -> torch.Tensor:
    cache = call.cache
    slots = request_slots(call.page_table, call.seq_lens, cache.layout.page_tokens, call.total_tokens, cache.slots)
    known = slots >= 0
    tokens = read_mla_tokens(cache.data, cache.layout, slots.where(known, 0))
    return tokens.where(known[:, None], 0.0).to(call.dtype)


BACKEND = Backend("torch", _run, rank=LAST)
