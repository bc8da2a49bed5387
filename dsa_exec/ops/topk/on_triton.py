"""`topk` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.topk import Call
from dsa_exec.ops.topk.launch import portable_launch, refuses_width


def _refuses(call: Call, hw: Capabilities) -> str | None:
    return refuses_width(call.logits.shape[1]) or refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> torch.Tensor:
    picked = torch.empty(call.logits.shape[0], call.k, dtype=torch.int32, device=call.logits.device)
    if picked.shape[0] == 0:
        return picked
    from dsa_exec.ops.topk.kernels.portable import launch_portable

    launch_portable(call, picked, chosen_launch("topk", "triton", portable_launch(*call.logits.shape)))
    return picked


def _footprint(call: Call, _: Capabilities) -> Footprint:
    return Footprint(row_bytes=call.k * 4)  # the result


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20, footprint=_footprint)
