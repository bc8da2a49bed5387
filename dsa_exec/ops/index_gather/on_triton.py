"""`index_gather` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

import torch

from dsa_exec.caches.addresses import refuses_addresses
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.index_gather import Call
from dsa_exec.ops.index_gather.launch import portable_launch


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_addresses(call.cache) or refuses_gradients(call) or refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor | None]:
    data, layout, count = call.cache.data, call.cache.layout, call.total_tokens
    is_fp8 = layout.format == "fp8"
    keys = torch.empty(count, layout.head_dim, dtype=E4M3 if is_fp8 else data.dtype, device=data.device)
    scales = torch.empty(count, dtype=torch.float32, device=data.device) if is_fp8 else None
    if count == 0:
        return keys, scales
    from dsa_exec.ops.index_gather.kernels.portable import launch_portable

    requests = call.seq_lens.shape[0]
    launch_portable(call, keys, scales, chosen_launch("index_gather", "triton", portable_launch(requests)))
    return keys, scales


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
