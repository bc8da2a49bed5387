"""`index_quant` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.index_quant import Call
from dsa_exec.ops.index_quant.launch import portable_launch


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_gradients(call) or refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    q, is_fp8 = call.q, call.layout.format == "fp8"
    codes = torch.empty(q.shape, dtype=E4M3, device=q.device) if is_fp8 else q
    head_weights = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    if head_weights.numel() == 0:
        return codes, head_weights
    from dsa_exec.ops.index_quant.kernels.portable import launch_portable

    launch_portable(call, codes, head_weights, chosen_launch("index_quant", "triton", portable_launch(is_fp8)))
    return codes, head_weights


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
