"""Number formats: e4m3 with scales, and the rotation that spreads a vector before it is quantised."""

from __future__ import annotations

import torch

E4M3 = torch.float8_e4m3fn
E4M3_MAX = 448.0
"""The largest e4m3 number; beyond it the conversion gives NaN, so that values are clamped first."""

AMAX_FLOOR = 1e-4
"""The least magnitude that a scale is made for. Without it a block of zeros has scale 0 and quantises to NaN."""

assert torch.finfo(E4M3).max == E4M3_MAX


def e4m3_scale(amax: torch.Tensor, *, pow2: bool = False) -> torch.Tensor:
    """The factor that brings a block of values within e4m3.

    Args:
        amax: f32, the largest magnitude of each block.
        pow2: round the scale up to a power of two.

    Returns:
        f32, shaped as `amax`: max(amax, 1e-4) / 448, or the power of two at or above that.
    """
    amax = amax.float().clamp(min=AMAX_FLOOR)
    # By a tensor: CUDA multiplies by the reciprocal of a Python number, which rounds another way than a division.
    scale = amax / amax.new_full((), E4M3_MAX)
    if not pow2:
        return scale
    # Exactly, where a logarithm would round: scale = mantissa * 2**exponent with mantissa in [0.5, 1).
    mantissa, exponent = torch.frexp(scale)
    return torch.ldexp(torch.ones_like(scale), exponent - (mantissa == 0.5).to(exponent.dtype))


def quantise_e4m3(values: torch.Tensor, block: int, *, pow2: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise blocks of the last dimension.

    Args:
        values: float [..., n * block].
        block: how many values share a scale.
        pow2: round scales up to powers of two.

    Returns:
        e4m3 [..., n * block] and the scales, f32 [..., n]: value ≈ e4m3 * scale.
    """
    blocks = values.float().unflatten(-1, (-1, block))
    scales = e4m3_scale(blocks.abs().amax(-1), pow2=pow2)
    scaled = (blocks / scales[..., None]).clamp(-E4M3_MAX, E4M3_MAX)
    return scaled.flatten(-2).to(E4M3), scales


def hadamard(values: torch.Tensor) -> torch.Tensor:
    """The orthogonal Walsh-Hadamard transform of the last dimension, whose length is a power of two.

    Args:
        values: float [..., d].

    Returns:
        f32 [..., d]: values @ H / sqrt(d). Dot products of two transformed vectors are those of the originals.
    """
    size = values.shape[-1]
    assert size & (size - 1) == 0, f"length {size} is not a power of two"
    turned, half = values.float(), 1
    while half < size:
        pairs = turned.unflatten(-1, (-1, 2, half))
        first, second = pairs.unbind(-2)
        turned = torch.stack((first + second, first - second), dim=-2).flatten(-3)
        half *= 2
    return turned * size**-0.5
