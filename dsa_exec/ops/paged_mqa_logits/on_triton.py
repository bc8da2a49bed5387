"""`paged_mqa_logits` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_gpu, is_interpreted, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.paged_mqa_logits import Call
from dsa_exec.ops.paged_mqa_logits.launch import NATIVE_E4M3, portable_launch

MOST_COLUMNS = 2**31 - 2**14
"""Positions are numbered in int32, with room for the last span beyond the end."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_triton(hw) or refuses_gradients(call)) is not None:
        return sentence
    if call.max_context_len > MOST_COLUMNS:
        return f"max_context_len={call.max_context_len}, this kernel numbers up to {MOST_COLUMNS} positions in int32"
    begin = call.cache.data.data_ptr() % 4
    if call.cache.layout.format == "fp8" and begin:
        return f"the cache begins {begin} bytes past a multiple of 4, where no f32 can be"
    return None


def _declines(_call: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> torch.Tensor:
    requests, next_n, heads, head_dim = call.q.shape
    width = call.max_context_len
    out = call.q.new_empty(requests * next_n, width, dtype=torch.float32) if call.out is None else call.out
    if out.numel() == 0:
        return out
    from dsa_exec.ops.paged_mqa_logits.kernels.portable import write_logits

    arithmetic = _arithmetic(call)
    launch = portable_launch(requests, next_n, heads, head_dim, width, wide=arithmetic == "f32")
    write_logits(call, out, chosen_launch("paged_mqa_logits", "triton", launch), arithmetic)
    return out


def _arithmetic(call: Call) -> str:
    """What the kernel turns queries and keys into before it multiplies them."""
    if is_interpreted():  # the interpreter multiplies bf16 wrongly and reads NaN of e4m3 as a number
        return "f32"
    if call.cache.layout.format == "fp8":
        return "same" if capabilities(call.q.device).arch in NATIVE_E4M3 else "f16"
    halves = call.q.dtype == call.cache.data.dtype and call.q.dtype.itemsize == 2
    return "same" if halves else "f32"


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
