"""Tensors that stay where they are for as long as they are used."""

from __future__ import annotations

import torch


def hold_address(tensor: torch.Tensor) -> torch.Tensor:
    """Tell the compiler that a tensor stays where it is, so that graphs work on it in place."""
    if not torch.compiler.is_compiling():
        torch._dynamo.mark_static_address(tensor, guard=False)
    return tensor
