"""The specification of `sparse_mla_prefill`."""

from __future__ import annotations

import torch

from dsa_exec.core.attention import attend_selected
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.ops.sparse_mla_prefill import Call


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    return attend_selected(
        call.q,
        call.indices,
        lambda rows: call.kv[rows].float(),
        call.kv.shape[0],
        d_v=call.d_v,
        sm_scale=call.sm_scale,
        attn_sink=call.attn_sink,
    )


BACKEND = Backend("torch", _run, rank=LAST)
