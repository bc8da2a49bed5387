"""Tensors of which each rank holds a part (DTensor), as transformers makes of a model's weights."""

from __future__ import annotations

import torch

_WHOLE = (torch.Tensor, torch.nn.Parameter)


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether a tensor is one of which each rank holds a part."""
    if type(tensor) in _WHOLE:  # nearly always, and then nothing is imported
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this rank holds of a tensor: all of it where it is not split. Shares its memory, and asks no other rank."""
    if not is_shard(tensor):
        return tensor
    part: torch.Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return part
