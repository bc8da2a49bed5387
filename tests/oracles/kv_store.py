from __future__ import annotations

import torch

from oracles.number_formats import bf16_bytes, f32_bytes, quantise


def oracle(cache, latent, rope, slots):
    view = cache.data.view(torch.uint8).clone().cpu()
    for row, slot in enumerate(slots.tolist()):
        if slot < 0:
            continue
        values, rotated = latent[row].float().tolist(), rope[row].float().tolist()
        if cache.layout.format == "model":
            token = b"".join(map(f32_bytes, values + rotated))
        else:
            groups = [quantise(values[start : start + 128]) for start in range(0, len(values), 128)]
            token = b"".join(bytes(codes) for codes, _ in groups)
            token += b"".join(f32_bytes(scale) for _, scale in groups)
            token += b"".join(map(bf16_bytes, rotated))
        view[slot] = torch.tensor(list(token), dtype=torch.uint8)
    return {"bytes": view}
