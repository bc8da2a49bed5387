"""Launches the Hopper kernel that fits the number of heads."""

from __future__ import annotations

import torch
import triton

from dsa_exec.ops.sparse_mla_prefill import Call
from dsa_exec.ops.sparse_mla_prefill.kernels.gathered import LOG2_E
from dsa_exec.ops.sparse_mla_prefill.kernels.narrow import attend_narrow
from dsa_exec.ops.sparse_mla_prefill.kernels.wide import attend_wide
from dsa_exec.ops.sparse_mla_prefill.launch import HopperLaunch

EIGHTH = 8
"""Elements of a copy of 16 bytes: strides are counted in these."""


def attend(call: Call, launch: HopperLaunch) -> tuple[torch.Tensor, torch.Tensor]:
    """The op on checked arguments that the backend does not refuse."""
    q, kv, indices = call.q, call.kv, call.indices
    rows, heads, _ = q.shape
    out = q.new_empty(rows, heads, call.d_v)
    lse = q.new_empty(rows, heads, dtype=torch.float32)
    if rows == 0 or heads == 0:
        return out, lse
    if indices.shape[1] == 0 or kv.shape[0] == 0:
        return out.zero_(), lse.fill_(-torch.inf)
    blocks = triton.cdiv(heads, launch.heads)
    args = (
        q,
        kv,
        indices,
        lse if call.attn_sink is None else call.attn_sink,
        out,
        lse,
        call.sm_scale * LOG2_E.value,
        kv.shape[0],
        heads,
        indices.shape[1],
        blocks,
        q.stride(0) // EIGHTH,
        q.stride(1) // EIGHTH,
        kv.stride(0) // EIGHTH,
        indices.stride(0),
    )
    has_sink = call.attn_sink is not None
    with torch.cuda.device(q.device):
        if launch.heads == 64:
            attend_wide[(rows * blocks,)](
                *args,
                HAS_SINK=has_sink,
                COPY_REGISTERS=launch.copy_registers,
                REGISTERS=launch.registers,
                num_warps=4,
                maxnreg=168,
            )
        else:
            attend_narrow[(rows * blocks,)](
                *args,
                HEADS=launch.heads,
                BUFFERS=launch.buffers,
                HAS_SINK=has_sink,
                COPY_REGISTERS=launch.copy_registers,
                num_warps=4,
                maxnreg=128,
            )
    return out, lse
