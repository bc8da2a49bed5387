"""The specification of `kv_store`."""

from __future__ import annotations

import torch

from dsa_exec.core.numerics import quantise_e4m3
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.mla_kv import GROUP
from dsa_exec.ops.kv_store import Call


def _run(call: Call) -> None:
    data = call.cache.data
    slots = call.slots.long()
    kept = (slots >= 0) & (slots < call.cache.slots)
    slots, latent, rope = slots[kept], call.latent[kept], call.rope[kept]
    if call.cache.layout.format == "model":
        data[slots] = torch.cat([latent, rope], dim=1).to(data.dtype)
        return
    quantised, scales = quantise_e4m3(latent, GROUP)
    parts = (quantised, scales, rope.to(torch.bfloat16))
    data[slots] = torch.cat([part.contiguous().view(torch.uint8) for part in parts], dim=1)


BACKEND = Backend("torch", _run, rank=LAST)
