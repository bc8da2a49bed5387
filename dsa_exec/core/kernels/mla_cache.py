"""Device functions that read tokens of an MLA cache, in either of its formats, as numbers to compute with."""

from __future__ import annotations

import triton
import triton.language as tl

from dsa_exec.core.kernels.quantise import e4m3_values

GROUP = tl.constexpr(128)
"""Latent channels that share a scale, as in `layouts/mla_kv.py`."""


@triton.jit
def load_latents(
    latents,
    scales,
    slots,
    named,
    first,
    latent_stride,
    scale_stride,
    LATENT_DIM: tl.constexpr,
    CHANNELS: tl.constexpr,
    FP8: tl.constexpr,
    NATIVE_E4M3: tl.constexpr,
    DTYPE: tl.constexpr,
):
    """A block of latent channels of some tokens, dequantised.

    Args:
        latents: where the first token's latent begins: uint8 codes with FP8, else of the model's dtype.
        scales: f32, where the first token's scales begin; not looked at without FP8.
        slots: int64 [n], which can all be addressed.
        named: bool [n]; tokens that are not named give zeros and are not read.
        first: the first channel, a multiple of GROUP with FP8.
        latent_stride, scale_stride: elements from token to token.
        CHANNELS: how many, a power of two, at least GROUP with FP8.
        NATIVE_E4M3: the device converts e4m3 itself.

    Returns:
        DTYPE [n, CHANNELS], zero from LATENT_DIM on.
    """
    if FP8:
        group = tl.arange(0, CHANNELS // GROUP)
        within = tl.arange(0, GROUP)
        channel = first + group[:, None] * GROUP + within[None, :]
        is_read = named[:, None, None] & (channel < LATENT_DIM)[None, :, :]
        at = latents + (slots * latent_stride)[:, None, None] + channel[None, :, :]
        codes = tl.load(at, mask=is_read, other=0)
        if NATIVE_E4M3:
            values = codes.to(tl.float8e4nv, bitcast=True).to(tl.float32)
        else:
            values = e4m3_values(codes)
        of_group = first // GROUP + group
        at = scales + (slots * scale_stride)[:, None] + of_group[None, :]
        factors = tl.load(at, mask=named[:, None] & (of_group * GROUP < LATENT_DIM)[None, :], other=0.0)
        return tl.reshape((values * factors[:, :, None]).to(DTYPE), (slots.shape[0], CHANNELS))
    else:  # noqa: RET505 - a statement of its own would be compiled too
        channel = first + tl.arange(0, CHANNELS)
        at = latents + (slots * latent_stride)[:, None] + channel[None, :]
        return tl.load(at, mask=named[:, None] & (channel < LATENT_DIM)[None, :], other=0.0).to(DTYPE)


@triton.jit
def load_rope(
    ropes, slots, named, first, rope_stride, ROPE_DIM: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr
):
    """A block of RoPE channels of some tokens: DTYPE [n, CHANNELS]; zeros and not read as in `load_latents`."""
    channel = first + tl.arange(0, CHANNELS)
    at = ropes + (slots * rope_stride)[:, None] + channel[None, :]
    return tl.load(at, mask=named[:, None] & (channel < ROPE_DIM)[None, :], other=0.0).to(DTYPE)
