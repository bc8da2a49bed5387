"""Softmax attention over some rows, one query head at a time, in float64."""

from __future__ import annotations

import math

import torch


def attend(q, picked_rows, d_v, sm_scale, attn_sink):
    """Attention of each query row over its list of rows (each a list of floats)."""
    rows, heads, _ = q.shape
    out = torch.zeros(rows, heads, d_v, dtype=torch.float64)
    lse = torch.full((rows, heads), -math.inf, dtype=torch.float64)
    for row in range(rows):
        if not picked_rows[row]:
            continue
        keys = torch.tensor(picked_rows[row], dtype=torch.float64)
        for head in range(heads):
            scores = [float(key @ q[row, head].double()) * sm_scale for key in keys]
            top = max(scores)
            exponentials = [math.exp(score - top) for score in scores]
            total = sum(exponentials)
            lse[row, head] = top + math.log(total)
            if attn_sink is not None:
                total += math.exp(float(attn_sink[head]) - top)
            for key, exponential in zip(keys, exponentials, strict=True):
                out[row, head] += key[:d_v] * (exponential / total)
    return {"out": out.to(q.dtype), "lse": lse.float()}
