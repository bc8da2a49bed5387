"""`mqa_logits` in Gluon for Hopper's matrix units and copy engine: e4m3, 128 channels, the usual head counts."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.numerics import E4M3
from dsa_exec.core.triton_support import declines_off_hopper, refuses_without_hopper
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.mqa_logits import Call
from dsa_exec.ops.mqa_logits.launch import hopper_launch

CHANNELS = 128
HEADS = (32, 64)
COPY_BYTES = 16
"""The copy engine takes addresses and row strides that are multiples of this."""

MOST_KEYS = 2**31 - 2**14
"""Keys are numbered in int32, with room for the last chunk beyond the end."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_hopper(hw) or refuses_gradients(call)) is not None:
        return sentence
    _, heads, channels = call.q.shape
    if call.q.dtype is not E4M3:
        return f"q is {str(call.q.dtype).removeprefix('torch.')}, this kernel takes float8_e4m3fn"
    if heads not in HEADS or channels != CHANNELS:
        return f"{heads} heads of {channels} channels, this kernel takes 32 or 64 heads of {CHANNELS}"
    if call.keys.shape[0] > MOST_KEYS:
        return f"{call.keys.shape[0]} keys, this kernel numbers up to {MOST_KEYS} in int32"
    return _refuses_addresses(call)


def _refuses_addresses(call: Call) -> str | None:
    if not call.q.is_contiguous():
        return f"q has strides {list(call.q.stride())}, this kernel takes a contiguous one"
    if call.keys.stride(0) < CHANNELS or call.keys.stride(0) % COPY_BYTES:
        return f"keys have rows {call.keys.stride(0)} bytes apart, the copy engine takes multiples of {COPY_BYTES}"
    for name, tensor in (("q", call.q), ("keys", call.keys)):
        if past := tensor.data_ptr() % COPY_BYTES:
            return f"{name} begins {past} bytes past a multiple of {COPY_BYTES}, the copy engine takes multiples"
    return None


def _declines(_call: Call, hw: Capabilities) -> str | None:
    return declines_off_hopper(hw)


def _run(call: Call) -> torch.Tensor:
    t, heads, _ = call.q.shape
    s = call.keys.shape[0]
    out = call.q.new_empty(t, s, dtype=torch.float32) if call.out is None else call.out
    if t == 0 or s == 0:
        return out
    from dsa_exec.ops.mqa_logits.kernels.hopper import write_logits

    with torch.cuda.device_of(call.q):
        write_logits(call, out, chosen_launch("mqa_logits", "gluon", hopper_launch(t, heads, s)))
    return out


BACKEND = Backend("gluon", _run, _refuses, _declines, rank=10)
