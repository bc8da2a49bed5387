"""The specification of `kv_store`."""

from __future__ import annotations

import torch

from dsa_exec.core.masked_writes import MaskedWrites
from dsa_exec.core.numerics import quantise_e4m3
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.layouts.mla_kv import GROUP
from dsa_exec.ops.kv_store import Call


def _run(call: Call) -> None:
    data, latent, rope = call.cache.data, call.latent, call.rope
    if latent.shape[0] == 0:
        return
    writes = MaskedWrites.to(call.slots, call.cache.slots)
    if call.cache.layout.format == "model":
        writes.write(data, (writes.slots,), torch.cat([latent, rope], dim=1).to(data.dtype))
        return
    quantised, scales = quantise_e4m3(latent, GROUP)
    parts = (quantised, scales, rope.to(torch.bfloat16))
    tokens = torch.cat([part.contiguous().view(torch.uint8) for part in parts], dim=1)
    writes.write(data, (writes.slots,), tokens)


BACKEND = Backend("torch", _run, rank=LAST)
