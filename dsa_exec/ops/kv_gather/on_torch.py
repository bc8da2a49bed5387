"""The specification of `kv_gather`."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.views import read_mla_tokens, request_slots
from dsa_exec.ops.kv_gather import Call


def _run(call: Call) -> torch.Tensor:
    slots = request_slots(call.page_table, call.seq_lens, call.cache.layout.page_tokens, call.total_tokens)
    known = (slots >= 0) & (slots < call.cache.slots)
    tokens = read_mla_tokens(call.cache.data, call.cache.layout, slots.where(known, 0))
    return tokens.where(known[:, None], 0.0).to(call.dtype)


BACKEND = Backend("torch", _run, rank=LAST)
