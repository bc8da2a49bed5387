"""Attention over gathered rows: the arithmetic by which both sparse MLA ops are specified."""

from __future__ import annotations

from collections.abc import Callable

import torch

SCRATCH_BYTES = 64 * 2**20
"""How much the reference gathers at once, so that it can be run on long prompts."""


def attend_selected(
    q: torch.Tensor,
    indices: torch.Tensor,
    rows_of: Callable[[torch.Tensor], torch.Tensor],
    key_count: int,
    *,
    d_v: int,
    sm_scale: float,
    attn_sink: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention of each query over the rows that its indices name.

    Args:
        q: float [t, h, d].
        indices: int [t, k]; below 0 or from `key_count` on means nothing.
        rows_of: the f32 rows [n, d] of int64 indices [n], all of them valid.
        key_count: how many rows there are.
        d_v: how many leading channels of a row are its value.
        sm_scale: factor of the scores.
        attn_sink: f32 [h] or None: one more score in the denominator of each head, without a value.

    Returns:
        out [t, h, d_v] in q's dtype, zeros where nothing is selected; lse f32 [t, h], the natural log of the sum of
        exponentials without the sink, -inf where nothing is selected.
    """
    t, h, d = q.shape
    out = q.new_zeros(t, h, d_v)
    lse = torch.full((t, h), -torch.inf, dtype=torch.float32, device=q.device)
    if key_count == 0 or indices.shape[1] == 0:
        return out, lse
    at_once = max(1, SCRATCH_BYTES // (indices.shape[1] * d * 4))
    for first in range(0, t, at_once):
        part = slice(first, first + at_once)
        chosen = indices[part].long()
        valid = (chosen >= 0) & (chosen < key_count)
        rows = rows_of(chosen.where(valid, 0).flatten()).unflatten(0, chosen.shape)
        rows = rows.where(valid[..., None], 0.0)  # a poisoned row must not reach the sum through 0 * NaN
        # A copy: what a processor sums first depends on where rows begin and how far apart they are.
        queries = q[part].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        scores = torch.einsum("thd,tkd->thk", queries, rows) * sm_scale
        scores = scores.masked_fill(~valid[:, None], -torch.inf)
        part_lse = torch.logsumexp(scores, dim=-1)
        weights = torch.exp(scores - part_lse.where(part_lse > -torch.inf, 0.0)[..., None])
        part_out = torch.einsum("thk,tkd->thd", weights, rows[..., :d_v])
        if attn_sink is not None:
            finite = part_lse.where(part_lse > -torch.inf, 0.0)  # of an empty row with a sink of -inf: zeros, not NaN
            part_out = part_out * torch.sigmoid(finite - attn_sink.float())[..., None]
        out[part], lse[part] = part_out.to(q.dtype), part_lse
    return out, lse
