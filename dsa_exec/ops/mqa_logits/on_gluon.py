"""`mqa_logits` in Gluon for Hopper's matrix units and copy engine: e4m3, 128 channels, the usual head counts."""

from __future__ import annotations

import torch

from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.hopper_indexer_inputs import refuses_queries_and_keys
from dsa_exec.core.launch import chosen_launch
from dsa_exec.core.triton_support import declines_off_hopper, refuses_without_hopper
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.ops.mqa_logits import Call
from dsa_exec.ops.mqa_logits.launch import hopper_launch


def _refuses(call: Call, hw: Capabilities) -> str | None:
    if (sentence := refuses_without_hopper(hw) or refuses_gradients(call)) is not None:
        return sentence
    return refuses_queries_and_keys(call.q, call.keys)


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
