"""Scores and global positions of what was picked: each program takes some of a row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.ops.topk_candidates import Call
from dsa_exec.ops.topk_candidates.launch import PortableLaunch


@triton.jit(do_not_specialize=["width", "k", "part", "parts", "block"])
def _tell(
    logits_ptr,
    picked_ptr,
    starts_ptr,
    blocks_ptr,
    told_ptr,
    logits_stride,
    picked_stride,
    width,
    k,
    part,
    parts,
    block,
    WINDOWS: tl.constexpr,
    LISTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    nth = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    picked = tl.load(picked_ptr + row * picked_stride + nth, mask=nth < k, other=-1)
    columns = picked.to(tl.int64)
    if WINDOWS:
        columns += tl.load(starts_ptr + row)
    known = (picked >= 0) & (columns >= 0) & (columns < width)
    bits = tl.load(logits_ptr + row * logits_stride + columns, mask=known, other=0)
    if LISTED:
        block = tl.load(blocks_ptr + row)
    block = block.to(tl.int64)
    places = picked.to(tl.int64)
    positions = places // block * (block * parts) + part * block + places % block
    positions = tl.where(known & (positions < 2147483647), positions, -1).to(tl.int32)
    tl.store(told_ptr + row * (2 * k) + nth, bits, mask=nth < k)
    tl.store(told_ptr + row * (2 * k) + k + nth, positions, mask=nth < k)


def launch_portable(call: Call, told: torch.Tensor, launch: PortableLaunch) -> None:
    """Fill `told`, int32 [t, 2, k], of at least one row and one position."""
    rows, k = call.picked.shape
    split, starts, unused = call.part.split, call.row_starts, call.picked
    blocks = split.block if isinstance(split.block, torch.Tensor) else None
    with torch.cuda.device_of(call.logits):
        _tell[(rows, triton.cdiv(k, launch.block))](
            call.logits.view(torch.int32),
            call.picked,
            unused if starts is None else starts,
            unused if blocks is None else blocks,
            told,
            call.logits.stride(0),
            call.picked.stride(0),
            call.logits.shape[1],
            k,
            call.part.part,
            split.parts,
            split.block if blocks is None else 1,
            WINDOWS=starts is not None,
            LISTED=blocks is not None,
            BLOCK=launch.block,
            num_warps=launch.warps,
        )
