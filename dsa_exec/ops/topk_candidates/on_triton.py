"""`topk_candidates` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.memory.footprint import Footprint
from dsa_exec.ops.topk_candidates import Call
from dsa_exec.ops.topk_candidates.launch import portable_launch


def _refuses(_: Call, hw: Capabilities) -> str | None:
    return refuses_without_triton(hw)


def _declines(_: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> torch.Tensor:
    rows, k = call.picked.shape
    told = call.picked.new_empty(rows, 2, k)
    if told.numel() == 0:
        return told
    from dsa_exec.ops.topk_candidates.kernels.portable import launch_portable

    launch_portable(call, told, chosen_launch("topk_candidates", "triton", portable_launch(k)))
    return told


def _footprint(call: Call, _: Capabilities) -> Footprint:
    return Footprint(row_bytes=call.picked.shape[1] * 8)  # the result


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20, footprint=_footprint)
