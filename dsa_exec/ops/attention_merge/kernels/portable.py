"""Outputs over parts of the keys, weighed and added up: each program has some heads of a row and reads it once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.attention import LN_2, LOG2_E
from dsa_exec.core.triton_support import is_interpreted
from dsa_exec.ops.attention_merge import Call
from dsa_exec.ops.attention_merge.launch import PortableLaunch


@triton.jit
def _wide(number):
    """A number that offsets beyond 2^31 can be made of."""
    return tl.zeros((), tl.int64) + number  # of a loop's counter, which the interpreter has as a plain int


@triton.jit
def _lse_of(lses, part, parts, stride):
    """The log-sum-exp of a part; -inf of one that is not there."""
    return tl.load(lses + part * stride, mask=part < parts, other=float("-inf"))


@triton.jit(do_not_specialize=["parts", "heads"])
def merge_kernel(
    outs,
    lses,
    sink,
    out,
    lse,
    parts,
    heads,
    outs_part_stride,
    outs_row_stride,
    outs_head_stride,
    lses_part_stride,
    lses_row_stride,
    lses_head_stride,
    D: tl.constexpr,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    PARTS: tl.constexpr,
    HAS_SINK: tl.constexpr,
):
    """Programs are in the order of blocks of channels, groups of heads, rows."""
    blocks: tl.constexpr = (D + CHANNELS - 1) // CHANNELS
    program = tl.program_id(0)
    groups = tl.cdiv(heads, HEADS)
    row = (program // blocks // groups).to(tl.int64)
    first_head = program // blocks % groups * HEADS
    channel = program % blocks * CHANNELS + tl.arange(0, CHANNELS)
    lses += row * lses_row_stride
    outs += row * outs_row_stride + channel
    # One head after the other: what is a number of a head is a scalar, which threads need not exchange.
    for head in range(first_head, tl.minimum(first_head + HEADS, heads)):
        wide_head = _wide(head)
        lse_at = lses + wide_head * lses_head_stride
        out_at = outs + wide_head * outs_head_stride
        top = float("-inf")
        for first in range(0, parts, PARTS):
            for step in tl.static_range(PARTS):
                top = tl.maximum(top, _lse_of(lse_at, _wide(first + step), parts, lses_part_stride))
        base = tl.where(top == float("-inf"), 0.0, top)

        total = 0.0
        summed = tl.zeros((CHANNELS,), tl.float32)
        for first in range(0, parts, PARTS):
            for step in tl.static_range(PARTS):  # unrolled, so that parts are read at once; added up in order
                part = _wide(first + step)
                part_lse = _lse_of(lse_at, part, parts, lses_part_stride)
                share = tl.exp2((part_lse - base) * LOG2_E)
                end = tl.where(part_lse == float("-inf"), 0, D)
                values = tl.load(out_at + part * outs_part_stride, mask=channel < end, other=0.0)
                total += share
                summed += share * values.to(tl.float32)

        nothing = total == 0.0
        some = tl.where(nothing, 1.0, total)
        denominator = some
        if HAS_SINK:
            denominator += tl.exp2((tl.load(sink + head) - base) * LOG2_E)
        factor = tl.where(nothing, 0.0, 1.0 / denominator)
        place = row * heads + head
        tl.store(out + place * D + channel, (summed * factor).to(out.dtype.element_ty), mask=channel < D)
        if program % blocks == 0:
            # In natural units, so that one part alone keeps its own to the bit.
            tl.store(lse + place, tl.where(nothing, float("-inf"), base + tl.log2(some) * LN_2))


def merge(call: Call, launch: PortableLaunch) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the kernel.

    Returns:
        out [t, h, d] in outs' dtype and lse f32 [t, h], as the public function describes them.
    """
    outs, lses = call.outs, call.lses
    parts, rows, heads, channels = outs.shape
    # Interpreted, a cast to bfloat16 truncates: torch rounds the result.
    out = outs.new_empty(rows, heads, channels, dtype=torch.float32 if is_interpreted() else None)
    lse = lses.new_empty(rows, heads)
    if rows * heads == 0:
        return out.to(outs.dtype), lse
    programs = rows * triton.cdiv(heads, launch.heads) * triton.cdiv(channels, launch.channels)
    with torch.cuda.device_of(outs):
        merge_kernel[(programs,)](
            outs,
            lses,
            call.attn_sink,
            out,
            lse,
            parts,
            heads,
            *outs.stride()[:3],
            *lses.stride(),
            D=channels,
            HEADS=launch.heads,
            CHANNELS=launch.channels,
            PARTS=launch.parts,
            HAS_SINK=call.attn_sink is not None,
            num_warps=launch.warps,
        )
    return out.to(outs.dtype), lse
