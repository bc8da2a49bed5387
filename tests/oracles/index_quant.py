from __future__ import annotations

import torch

from oracles.number_formats import decode, quantise, rotate


def oracle(q, weights, layout):
    rows, heads, channels = q.shape
    out = torch.zeros(rows, heads, channels)
    head_weights = torch.zeros(rows, heads)
    for row in range(rows):
        for head in range(heads):
            values = q[row, head].float().tolist()
            scale = 1.0
            if layout.format == "fp8":
                values = rotate(values) if layout.hadamard else values
                codes, scale = quantise(values, pow2=layout.pow2_scale)
                values = [decode(code) for code in codes]
            out[row, head] = torch.tensor(values)
            head_weights[row, head] = float(weights[row, head]) * heads**-0.5 * channels**-0.5 * scale
    return {"q": out, "head_weights": head_weights}
