"""The specification of `sparse_mla_decode`."""

from __future__ import annotations

import torch

from dsa_exec.core.attention import attend_selected
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.views import read_mla_tokens
from dsa_exec.ops.sparse_mla_decode import Call


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    cache = call.cache
    return attend_selected(
        call.q,
        call.named_slots,
        lambda slots: read_mla_tokens(cache.data, cache.layout, slots),
        cache.slots,
        d_v=cache.layout.latent_dim,
        sm_scale=call.sm_scale,
        attn_sink=call.attn_sink,
    )


BACKEND = Backend("torch", _run, rank=LAST)
