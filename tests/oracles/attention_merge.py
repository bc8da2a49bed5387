from __future__ import annotations

import math

import torch


def oracle(outs, lses, attn_sink=None):
    _, rows, heads, channels = outs.shape
    out = torch.zeros(rows, heads, channels, dtype=torch.float64)
    lse = torch.full((rows, heads), -math.inf, dtype=torch.float64)
    for row in range(rows):
        for head in range(heads):
            scores = lses[:, row, head].tolist()
            attended = [part for part, score in enumerate(scores) if score != -math.inf]
            if not attended:
                continue
            top = max(scores)
            total = sum(math.exp(scores[part] - top) for part in attended)
            lse[row, head] = top + math.log(total)
            beside = 0.0 if attn_sink is None else math.exp(float(attn_sink[head]) - top)
            for part in attended:
                out[row, head] += outs[part, row, head].double() * (math.exp(scores[part] - top) / (total + beside))
    return {"out": out.to(outs.dtype), "lse": lse.float()}
