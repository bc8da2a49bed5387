from __future__ import annotations

import torch

from oracles.index_k_bytes import key_address, scale_address
from oracles.number_formats import f32_bytes, quantise, rotate


def oracle(cache, keys, slots):
    layout, shape = cache.layout, cache.data.view(torch.uint8).shape
    raw = bytearray(cache.data.view(torch.uint8).cpu().flatten().tolist())
    for key, slot in zip(keys.float().tolist(), slots.tolist(), strict=True):
        if slot < 0:
            continue
        if layout.format == "model":
            for channel, value in enumerate(key):
                at = (slot * layout.head_dim + channel) * 4
                raw[at : at + 4] = f32_bytes(value)
            continue
        codes, scale = quantise(rotate(key) if layout.hadamard else key, pow2=layout.pow2_scale)
        for channel, code in enumerate(codes):
            raw[key_address(layout, slot, channel)] = 0 if layout.unsigned_zero and code == 0x80 else code
        at = scale_address(layout, slot)
        raw[at : at + 4] = f32_bytes(scale)
    return {"bytes": torch.tensor(list(raw), dtype=torch.uint8).reshape(shape)}
