"""`torch.ops.dsa.attention_merge`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("dsa::attention_merge", mutates_args=())
def attention_merge_node(outs: Tensor, lses: Tensor, attn_sink: Tensor | None) -> tuple[Tensor, Tensor]:
    """The public function."""
    from dsa_exec.ops.attention_merge import attention_merge

    return attention_merge(outs, lses, attn_sink=attn_sink)


@attention_merge_node.register_fake
def _fake(outs: Tensor, lses: Tensor, _attn_sink: Tensor | None) -> tuple[Tensor, Tensor]:
    _, t, h, d = outs.shape
    return outs.new_empty(t, h, d), lses.new_empty(t, h)
