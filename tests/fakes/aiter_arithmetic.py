"""What aiter computes, apart from how it is called: where keys lie, scores, and versions as it compares them."""

from __future__ import annotations

import re

import torch

ARCHITECTURES = ("gfx942", "gfx950", "gfx1250")
FP8_MAX = {torch.float8_e4m3fn: 448.0, torch.float8_e4m3fnuz: 240.0}
TILE = 16


def places(token: int, head_dim: int, preshuffle: bool) -> torch.Tensor:
    """The bytes of a key within its page."""
    channels = torch.arange(head_dim)
    if not preshuffle:
        return token * head_dim + channels
    tile = token // TILE * TILE * head_dim + channels // TILE * TILE * TILE
    return tile + token % TILE * TILE + channels % TILE


def scores(q: torch.Tensor, keys: torch.Tensor, scales: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """f32 [t, s]; heads of zeros and weights of zero add nothing, unless a key is NaN."""
    dots = torch.einsum("thd,sd->ths", q.float(), keys.float())
    return (dots.relu() * weights[:, :, None]).sum(1) * scales


def numbers(version: str) -> tuple[int, ...]:
    """The three numbers of a version, as aiter compares them: without what follows."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))
