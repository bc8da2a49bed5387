"""Which calls of `sparse_mla_decode` want gradients: the specification has them, kernels have not."""

from __future__ import annotations

import torch

from dsa_exec.ops.sparse_mla_decode import Call


def refuses_gradients(call: Call) -> str | None:
    """Why a kernel without a backward pass cannot take the call; None if nobody wants gradients of it."""
    if torch.is_grad_enabled():
        for name, tensor in (("q", call.q), ("cache.data", call.cache.data), ("attn_sink", call.attn_sink)):
            if tensor is not None and tensor.requires_grad:
                return f"{name} requires a gradient, which this kernel does not give (torch.no_grad() waives it)"
    return None
