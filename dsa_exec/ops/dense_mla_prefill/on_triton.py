"""`dense_mla_prefill` in plain Triton, for every shape and dtype."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.dense_mla_prefill import Call
from dsa_exec.ops.dense_mla_prefill.launch import portable_launch


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    from dsa_exec.ops.dense_mla_prefill.kernels.portable import attend

    rows, heads, d = call.q.shape
    arch = capabilities(call.q.device).arch
    launch = portable_launch(arch, rows * heads, d, call.d_v, call.q.element_size())
    return attend(call, chosen_launch("dense_mla_prefill", "triton", launch))


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_without_triton(hw) or refuses_gradients(call)


def _declines(_call: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
