"""The specification of `attention_merge`."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.ops.attention_merge import Call


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    outs, lses = call.outs, call.lses
    top = lses.detach().amax(0)  # whatever is subtracted, the result and its gradient are the same
    top = top.where(top != -torch.inf, 0.0)
    total = torch.zeros_like(top)
    sums = torch.zeros(outs.shape[1:], dtype=torch.float32, device=outs.device)
    for out, lse in zip(outs, lses, strict=True):  # one part at a time: all of them in f32 take twice the room of outs
        share = torch.exp(lse - top)
        total = total + share
        attended = (lse != -torch.inf)[..., None]
        sums = sums + share[..., None] * out.float().where(attended, 0.0)  # what was never written may be NaN
    nothing = total == 0
    some = total.where(~nothing, 1.0)
    lse = top + some.log()
    merged = sums / some[..., None]
    if call.attn_sink is not None:
        merged = merged * torch.sigmoid(lse - call.attn_sink)[..., None]
    merged = merged.where(~nothing[..., None], 0.0)
    return merged.to(outs.dtype), lse.where(~nothing, -torch.inf)


BACKEND = Backend("torch", _run, rank=LAST)
