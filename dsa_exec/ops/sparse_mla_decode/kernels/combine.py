"""Puts the slices of a row together: each is its normalised sums and its log2-sum-exp."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.attention import finish_softmax


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


@triton.jit(do_not_specialize=["heads", "slices"])
def combine_kernel(
    sums,
    tops,
    sink,
    out,
    lse,
    heads,
    slices,
    LATENT_DIM: tl.constexpr,
    SLICES: tl.constexpr,
    CHANNELS: tl.constexpr,
    HAS_SINK: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    """A program has a block of channels of one head of one row, and adds up its slices in their order."""
    blocks: tl.constexpr = (LATENT_DIM + CHANNELS - 1) // CHANNELS
    program = tl.program_id(0)
    place = (program // blocks).to(tl.int64)
    row = place // heads
    head = place - row * heads
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    part = tl.arange(0, SLICES)
    at = (row * slices + part) * heads + head
    if OVERLAP:
        tl.extra.cuda.gdc_wait()  # launched while slices are still being made: what they wrote is seen from here on
    there = part < slices
    top = tl.load(tops + at, mask=there, other=float("-inf"))
    is_read = there[:, None] & (channel < LATENT_DIM)[None, :]
    sliced = tl.load(sums + at[:, None] * LATENT_DIM + channel[None, :], mask=is_read, other=0.0).to(tl.float32)
    best = tl.max(top, 0)
    share = tl.exp2(top - tl.where(best == float("-inf"), 0.0, best))
    if HAS_SINK:
        sinks = tl.load(sink + head)
    else:
        sinks = float("-inf")
    factor, row_lse = finish_softmax(best, tl.sum(share, 0), sinks)
    attended = tl.sum(sliced * share[:, None], 0) * factor
    tl.store(out + place * LATENT_DIM + channel, attended.to(out.dtype.element_ty), mask=channel < LATENT_DIM)
    if program % blocks == 0:
        tl.store(lse + place, row_lse)


def combine(parts: Parts, sink: torch.Tensor | None, out: torch.Tensor, lse: torch.Tensor, *, overlap: bool) -> None:
    """Write `out` [t, h, latent_dim] and `lse` [t, h] from the parts.

    Args:
        overlap: start while the kernel before it ends; devices from sm90 on can.
    """
    rows, heads, latent_dim = out.shape
    slices = parts.sums.shape[1]
    # Few programs would leave multiprocessors idle.
    channels = min(triton.next_power_of_2(latent_dim), 128 if rows * heads < 512 else 512)
    combine_kernel[(rows * heads * triton.cdiv(latent_dim, channels),)](
        parts.sums,
        parts.tops,
        sink,
        out,
        lse,
        heads,
        slices,
        LATENT_DIM=latent_dim,
        SLICES=max(2, triton.next_power_of_2(slices)),
        CHANNELS=channels,
        HAS_SINK=sink is not None,
        OVERLAP=overlap,
        num_warps=4 if slices >= 8 else 2,
        **({"launch_pdl": True} if overlap else {}),
    )
