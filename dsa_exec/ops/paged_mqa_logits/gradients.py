"""Which calls of `paged_mqa_logits` want gradients: the specification has them, kernels have not."""

from __future__ import annotations

import torch

from dsa_exec.ops.paged_mqa_logits import Call


def refuses_gradients(call: Call) -> str | None:
    """Why a kernel without a backward pass cannot take the call; None if nobody wants gradients of it."""
    if torch.is_grad_enabled():
        tensors = {"q": call.q, "cache.data": call.cache.data, "head_weights": call.head_weights, "out": call.out}
        for name, tensor in tensors.items():
            if tensor is not None and tensor.requires_grad:
                return f"{name} requires a gradient, which this kernel does not give (torch.no_grad() waives it)"
    return None
