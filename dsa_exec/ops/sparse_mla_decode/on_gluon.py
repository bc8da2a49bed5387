"""`sparse_mla_decode` in Gluon for Hopper: bf16 queries over the FP8 cache."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_hopper, refuses_without_hopper
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.sparse_mla_decode import Call
from dsa_exec.ops.sparse_mla_decode.launch import hopper_launch


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    from dsa_exec.ops.sparse_mla_decode.kernels.hopper import attend

    rows, heads, _ = call.q.shape
    multiprocessors = torch.cuda.get_device_properties(call.q.device).multi_processor_count
    launch = hopper_launch(rows, heads, call.slots.shape[1], multiprocessors=multiprocessors)
    return attend(call, chosen_launch("sparse_mla_decode", "gluon", launch))


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if sentence := refuses_without_hopper(hw):
        return sentence
    layout = call.cache.layout
    if layout.format != "fp8":
        return f"the cache has format {layout.format}, this kernel reads fp8"
    if (layout.latent_dim, layout.rope_dim) != (512, 64):
        return f"tokens of {layout.latent_dim} and {layout.rope_dim} channels, this kernel reads 512 and 64"
    if call.q.dtype != torch.bfloat16:
        return f"q is {call.q.dtype}, this kernel takes torch.bfloat16"
    return refuses_gradients(call)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_hopper(hw)


BACKEND = Backend("gluon", _run, _refuses, _declines, rank=10)
