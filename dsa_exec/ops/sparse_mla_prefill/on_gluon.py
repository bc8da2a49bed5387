"""`sparse_mla_prefill` in Gluon for Hopper: bf16, DeepSeek's 512 value and 64 RoPE channels, any number of heads."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_hopper, refuses_without_hopper
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.sparse_mla_prefill import Call
from dsa_exec.ops.sparse_mla_prefill.launch import hopper_launch

WIDTH, VALUES = 576, 512
COPIED = 8
"""Elements of one copy of 16 bytes: rows begin at multiples of that."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_hopper(hw) or refuses_gradients(call)) is not None:
        return sentence
    if call.q.dtype is not torch.bfloat16:
        return f"q is {str(call.q.dtype).removeprefix('torch.')}, this kernel takes bfloat16"
    if (call.q.shape[2], call.d_v) != (WIDTH, VALUES):
        return f"rows of {call.q.shape[2]} channels, {call.d_v} of them values: this kernel takes {WIDTH} and {VALUES}"
    for name, tensor in (("q", call.q), ("kv", call.kv)):
        apart = [stride for stride, size in zip(tensor.stride()[:-1], tensor.shape, strict=False) if size > 1]
        if any(stride % COPIED for stride in apart) or tensor.data_ptr() % (2 * COPIED):
            return f"{name} has strides {list(tensor.stride())}: its rows do not begin at multiples of 16 bytes"
    return None


def _declines(_call: Call, hw: Capabilities) -> str | None:
    return declines_off_hopper(hw)


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    from dsa_exec.ops.sparse_mla_prefill.kernels.hopper import attend

    return attend(call, chosen_launch("sparse_mla_prefill", "gluon", hopper_launch(call.q.shape[1])))


BACKEND = Backend("gluon", _run, _refuses, _declines, rank=10)
