"""`attention_merge` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.attention_merge import Call
from dsa_exec.ops.attention_merge.launch import portable_launch


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_gradients(call) or refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    from dsa_exec.ops.attention_merge.kernels.portable import merge

    outs = call.outs
    multiprocessors = torch.cuda.get_device_properties(outs.device).multi_processor_count if outs.is_cuda else 1
    launch = portable_launch(*outs.shape, multiprocessors=multiprocessors)
    return merge(call, chosen_launch("attention_merge", "triton", launch))


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
