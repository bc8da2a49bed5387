"""Which calls want gradients: specifications give them, kernels do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import torch


def refuses_gradients(call: Any) -> str | None:
    """Why a kernel without a backward pass cannot take a call; None if nobody wants gradients of it.

    Args:
        call: the op's Call, whose tensors are fields of it or of its cache.
    """
    if torch.is_grad_enabled():
        for name, tensor in _tensors(call):
            if tensor.requires_grad:
                return f"{name} requires a gradient, which this kernel does not give (torch.no_grad() waives it)"
    return None


def _tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for field in dataclasses.fields(value):
        part = getattr(value, field.name)
        if isinstance(part, torch.Tensor):
            yield prefix + field.name, part
        elif dataclasses.is_dataclass(part):
            yield from _tensors(part, f"{prefix}{field.name}.")
