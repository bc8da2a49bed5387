"""Puts the slices of a row together: each is its normalised sums and its log2-sum-exp."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.attention import finish_softmax
from dsa_exec.ops.sparse_mla_decode.launch import combine_launch


@dataclass(frozen=True, slots=True)
class Parts:
    """Scratch of a call whose rows are sliced.

    Attributes:
        sums: f32, f16 or bf16 [t, slices, h, latent_dim].
        tops: f32 [t, slices, h].
    """

    sums: torch.Tensor
    tops: torch.Tensor

    @classmethod
    def like(cls, out: torch.Tensor, slices: int, dtype: torch.dtype) -> Parts:
        """Fresh scratch for an output [t, h, latent_dim], its sums of this dtype."""
        rows, heads, channels = out.shape
        sums = out.new_empty(rows, slices, heads, channels, dtype=dtype)
        return cls(sums, out.new_empty(rows, slices, heads, dtype=torch.float32))


@triton.jit
def _each(values, PLACES: tl.constexpr):
    """Values [PLACES]; one alone as a scalar, which threads need not exchange between layouts."""
    if PLACES == 1:
        return tl.max(values, 0)
    else:  # noqa: RET505 - a statement of its own would be compiled too
        return values


@triton.jit
def _beside(values, PLACES: tl.constexpr):
    """What `_each` gives, to stand beside [PLACES, n]."""
    if PLACES == 1:
        return values
    else:  # noqa: RET505 - a statement of its own would be compiled too
        return values[:, None]


@triton.jit(do_not_specialize=["heads", "slices", "places"])
def combine_kernel(
    sums,
    tops,
    sink,
    out,
    lse,
    heads,
    slices,
    places,
    LATENT_DIM: tl.constexpr,
    SLICES: tl.constexpr,
    PLACES: tl.constexpr,
    CHANNELS: tl.constexpr,
    HAS_SINK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """A program has a block of channels of a few places, each a head of a row, and adds up slices in their order."""
    blocks: tl.constexpr = (LATENT_DIM + CHANNELS - 1) // CHANNELS
    program = tl.program_id(0)
    place = (program // blocks).to(tl.int64) * PLACES + tl.arange(0, PLACES)
    is_place = place < places
    row = place // heads
    head = place - row * heads
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    part = tl.arange(0, SLICES)
    at = (row[:, None] * slices + part[None, :]) * heads + head[:, None]
    if OVERLAP:
        tl.extra.cuda.gdc_wait()  # launched while slices are still being made: what they wrote is seen from here on
        tl.extra.cuda.gdc_launch_dependents()
    there = is_place[:, None] & (part < slices)[None, :]
    top = tl.load(tops + at, mask=there, other=float("-inf"))
    is_channel = channel < LATENT_DIM
    is_read = there[:, :, None] & is_channel[None, None, :]
    sliced = tl.load(sums + at[:, :, None] * LATENT_DIM + channel[None, None, :], mask=is_read, other=0.0)
    best = _each(tl.max(top, 1), PLACES)
    share = tl.exp2(top - _beside(tl.where(best == float("-inf"), 0.0, best), PLACES))
    if HAS_SINK:
        sinks = _each(tl.load(sink + head, mask=is_place, other=float("-inf")), PLACES)
    else:
        sinks = float("-inf")
    factor, row_lse = finish_softmax(best, _each(tl.sum(share, 1), PLACES), sinks)
    attended = tl.sum(sliced.to(tl.float32) * share[:, :, None], 1) * _beside(factor, PLACES)
    to = out + place[:, None] * LATENT_DIM + channel[None, :]
    tl.store(to, attended.to(out.dtype.element_ty), mask=is_place[:, None] & is_channel[None, :])
    if program % blocks == 0:
        tl.store(lse + place, tl.zeros([PLACES], tl.float32) + row_lse, mask=is_place)


def combine(parts: Parts, sink: torch.Tensor | None, out: torch.Tensor, lse: torch.Tensor, *, overlap: bool) -> None:
    """Write `out` [t, h, latent_dim] and `lse` [t, h] from the parts.

    Args:
        overlap: start while the kernel before it ends; devices from sm90 on can.
    """
    rows, heads, latent_dim = out.shape
    slices = parts.sums.shape[1]
    launch = combine_launch(rows * heads, slices, latent_dim)
    programs = triton.cdiv(rows * heads, launch.places) * triton.cdiv(latent_dim, launch.channels)
    combine_kernel[(programs,)](
        parts.sums,
        parts.tops,
        sink,
        out,
        lse,
        heads,
        slices,
        rows * heads,
        LATENT_DIM=latent_dim,
        SLICES=max(2, triton.next_power_of_2(slices)),
        PLACES=launch.places,
        CHANNELS=launch.channels,
        HAS_SINK=sink is not None,
        OVERLAP=overlap,
        num_warps=launch.warps,
        **({"launch_pdl": True} if overlap else {}),
    )
