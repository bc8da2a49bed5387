"""`kv_gather` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

import torch

from dsa_exec.caches.addresses import refuses_addresses
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.kv_gather import Call
from dsa_exec.ops.kv_gather.launch import portable_launch


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_addresses(call.cache) or refuses_gradients(call) or refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> torch.Tensor:
    data = call.cache.data
    tokens = torch.empty(call.total_tokens, call.cache.layout.width, dtype=call.dtype, device=data.device)
    if call.total_tokens == 0:
        return tokens
    from dsa_exec.ops.kv_gather.kernels.portable import launch_portable

    launch_portable(call, tokens, chosen_launch("kv_gather", "triton", portable_launch(call.seq_lens.shape[0])))
    return tokens


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
