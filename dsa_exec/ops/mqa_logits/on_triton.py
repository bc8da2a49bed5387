"""`mqa_logits` in plain Triton: any GPU that Triton knows, and the CPU under its interpreter."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.triton_support import declines_off_gpu, multiplies_e4m3, refuses_without_triton
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.mqa_logits import Call
from dsa_exec.ops.mqa_logits.launch import portable_launch

MOST_KEYS = 2**31 - 2**14
"""Keys are numbered in int32, with room for the last chunk beyond the end."""

MOST_HEADS = 256


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_triton(hw) or refuses_gradients(call)) is not None:
        return sentence
    if call.keys.shape[0] > MOST_KEYS:
        return f"{call.keys.shape[0]} keys, this kernel numbers up to {MOST_KEYS} in int32"
    _, heads, channels = call.q.shape
    if not 1 <= heads <= MOST_HEADS or channels < 1:
        return f"{heads} heads of {channels} channels, this kernel takes 1 to {MOST_HEADS} heads of 1 or more"
    if call.q.dtype is E4M3 and hw.device_type == "cuda" and not multiplies_e4m3(hw.arch):
        return f"arch={hw.arch}: Triton has no products of e4m3 there"
    return None


def _declines(_call: Call, hw: Capabilities) -> str | None:
    return declines_off_gpu(hw)


def _run(call: Call) -> torch.Tensor:
    t, heads, channels = call.q.shape
    s = call.keys.shape[0]
    out = call.q.new_empty(t, s, dtype=torch.float32) if call.out is None else call.out
    if t == 0 or s == 0:
        return out
    from dsa_exec.ops.mqa_logits.kernels.portable import write_logits

    arch = capabilities(call.q.device).arch
    launch = portable_launch(arch, t, heads, channels, s, call.q.element_size())
    with torch.cuda.device_of(call.q):
        write_logits(call, out, chosen_launch("mqa_logits", "triton", launch))
    return out


BACKEND = Backend("triton", _run, _refuses, _declines, rank=20)
