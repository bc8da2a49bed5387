"""Query heads to e4m3 and their scales into the head weights, in one pass: each program takes some heads."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.quantise import quantised, rotated, widened
from dsa_exec.ops.index_quant import Call
from dsa_exec.ops.index_quant.launch import PortableLaunch


@triton.jit(do_not_specialize=["row_count", "heads"])
def _quantise_heads(
    q_ptr,
    weights_ptr,
    codes_ptr,
    head_weights_ptr,
    q_row_stride,
    q_head_stride,
    weights_row_stride,
    weights_head_stride,
    row_count,
    heads,
    factor,
    QUANTISED: tl.constexpr,
    HADAMARD: tl.constexpr,
    POW2: tl.constexpr,
    ROWS: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    is_row = rows < row_count
    token, head = rows // heads, rows % heads
    weights = widened(
        tl.load(weights_ptr + token * weights_row_stride + head * weights_head_stride, mask=is_row, other=0.0)
    )
    head_weights = weights * factor
    if QUANTISED:
        channels = tl.arange(0, 128)
        at = q_ptr + (token * q_row_stride + head * q_head_stride)[:, None] + channels[None, :]
        values = widened(tl.load(at, mask=is_row[:, None], other=0.0))
        if HADAMARD:
            values = rotated(values, ROWS)
        codes, scales = quantised(values, POW2)
        tl.store(codes_ptr + rows[:, None] * 128 + channels[None, :], codes, mask=is_row[:, None])
        head_weights = head_weights * scales
    tl.store(head_weights_ptr + rows, head_weights, mask=is_row)


def launch_portable(call: Call, codes: torch.Tensor, head_weights: torch.Tensor, launch: PortableLaunch) -> None:
    """Fill `head_weights`, f32 [t, h], and in the fp8 format `codes`, e4m3 [t, h, 128], for at least one head."""
    q, weights, layout = call.q, call.weights, call.layout
    is_fp8 = layout.format == "fp8"
    rows, (_, heads, channels) = head_weights.numel(), q.shape
    with torch.cuda.device_of(q):
        _quantise_heads[(triton.cdiv(rows, launch.rows),)](
            q.detach(),
            weights.detach(),
            codes.view(torch.uint8) if is_fp8 else head_weights,
            head_weights,
            q.stride(0),
            q.stride(1),
            weights.stride(0),
            weights.stride(1),
            rows,
            heads,
            heads**-0.5 * channels**-0.5,
            QUANTISED=is_fp8,
            HADAMARD=layout.hadamard,
            POW2=layout.pow2_scale,
            ROWS=launch.rows,
            num_warps=launch.warps,
        )
