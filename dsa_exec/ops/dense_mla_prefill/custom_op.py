"""`torch.ops.dsa.dense_mla_prefill`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("dsa::dense_mla_prefill", mutates_args=())
def dense_mla_prefill_node(
    q: Tensor, kv: Tensor, starts: Tensor, ends: Tensor, sm_scale: float, d_v: int, attn_sink: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The public function."""
    from dsa_exec.ops.dense_mla_prefill import dense_mla_prefill

    return dense_mla_prefill(q, kv, starts, ends, sm_scale=sm_scale, d_v=d_v, attn_sink=attn_sink)


@dense_mla_prefill_node.register_fake
def _fake(
    q: Tensor, _kv: Tensor, _starts: Tensor, _ends: Tensor, _sm_scale: float, d_v: int, _attn_sink: Tensor | None
) -> tuple[Tensor, Tensor]:
    t, h, _ = q.shape
    return q.new_empty(t, h, d_v), q.new_empty(t, h, dtype=torch.float32)
