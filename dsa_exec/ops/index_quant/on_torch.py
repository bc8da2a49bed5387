"""The specification of `index_quant`."""

from __future__ import annotations

import torch

from dsa_exec.core.numerics import hadamard, quantise_e4m3
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.ops.index_quant import Call


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    _, heads, channels = call.q.shape
    head_weights = call.weights.float() * (heads**-0.5 * channels**-0.5)
    if call.layout.format == "model":
        return call.q, head_weights
    rotated = hadamard(call.q) if call.layout.hadamard else call.q
    quantised, scales = quantise_e4m3(rotated, channels, pow2=call.layout.pow2_scale)
    return quantised, head_weights * scales[..., 0]


BACKEND = Backend("torch", _run, rank=LAST)
