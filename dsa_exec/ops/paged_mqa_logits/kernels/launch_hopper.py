"""Launches the kernel of scores for Hopper: descriptors for the copy engine, the grid, and parts of many requests."""

from __future__ import annotations

import torch
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from dsa_exec.ops.paged_mqa_logits import Call
from dsa_exec.ops.paged_mqa_logits.kernels.hopper import WARPS, logits_kernel
from dsa_exec.ops.paged_mqa_logits.launch import HopperLaunch

MOST_UNITS = 1024
"""Units (a request's group of rows) that one launch tells apart."""

KEY_TILE = gl.NVMMASharedLayout(swizzle_byte_width=128, element_bitwidth=8, rank=2)
SCALE_TILE = gl.NVMMASharedLayout(swizzle_byte_width=0, element_bitwidth=8, rank=2)


def write_logits(call: Call, out: torch.Tensor, launch: HopperLaunch, multiprocessors: int) -> None:
    """Launch the kernel for a call that has requests, rows and columns."""
    data, q, weights, lens, table = call.cache.data, call.q, call.head_weights, call.context_lens, call.page_table
    requests, next_n, heads, _ = q.shape
    groups = -(-next_n // 4)
    rows = -(-next_n // groups)
    lines = [data.shape[0] * 66, 128]
    page_lines = TensorDescriptor(data, lines, [128, 1], [64, 128], KEY_TILE)
    scale_lines = TensorDescriptor(data, lines, [128, 1], [2, 128], SCALE_TILE)
    at_once = MOST_UNITS // groups
    pages = -(-call.max_context_len // 64)
    tensors = q, weights, lens, table, out
    with torch.cuda.device_of(data):
        for first in range(0, requests, at_once):
            count = min(at_once, requests - first)
            units = count * groups
            grid = max(min(multiprocessors * launch.programs, units * pages), 1)
            if count < requests:  # views of all of them would take the host a while, too
                part, row_part = slice(first, first + count), slice(first * next_n, (first + count) * next_n)
                tensors = q[part], weights[row_part], lens[part], table[part], out[row_part]
            logits_kernel[(grid,)](
                page_lines,
                scale_lines,
                *tensors,
                count,
                call.max_context_len,
                table.shape[1],
                data.shape[0],
                launch.least,
                q.stride(0),
                q.stride(1),
                q.stride(2),
                weights.stride(0),
                lens.stride(0),
                table.stride(0),
                out.stride(0),
                HEADS=heads,
                NEXT_N=next_n,
                ROWS=rows,
                UNITS=1 if units == 1 else 128 if units <= 128 else MOST_UNITS,
                STAGES=launch.stages,
                CLEAN=call.clean,
                OVERLAP=bool(launch.overlap),
                KEPT=bool(launch.kept),
                launch_pdl=bool(launch.overlap),
                num_warps=WARPS,
            )
