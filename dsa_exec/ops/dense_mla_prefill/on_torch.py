"""The specification of `dense_mla_prefill`: a part of the queries and a part of the keys at a time.

How much it holds at once is bounded by `SCRATCH_BYTES` of `core/attention.py`, so that it can be run on many requests.
"""

from __future__ import annotations

import torch

from dsa_exec.core import attention
from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk, rows_that_fit
from dsa_exec.ops.dense_mla_prefill import Call


def _run(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    rows, heads, d = call.q.shape
    keys = call.kv.shape[0]
    out = call.q.new_zeros(rows, heads, call.d_v)
    lse = call.q.new_zeros(rows, heads, dtype=torch.float32)
    keys_at_once = rows_per_chunk(keys, d * 4, attention.SCRATCH_BYTES)
    rows_at_once = rows_that_fit(heads * keys_at_once * 4, attention.SCRATCH_BYTES)
    parts_of_keys = list(row_chunks(keys, keys_at_once))
    only = _keys(call.kv, parts_of_keys[0]) if len(parts_of_keys) == 1 else None
    for part in row_chunks(rows, rows_at_once):
        part_out = torch.zeros_like(out[part], dtype=torch.float32)
        part_lse = torch.full_like(lse[part], -torch.inf)
        for among in parts_of_keys:
            tokens, is_bad = only or _keys(call.kv, among)
            scores = _scores(call, part, among, tokens, is_bad)
            new_lse = torch.logaddexp(part_lse, torch.logsumexp(scores, dim=-1))
            base = _finite(new_lse)
            weights = torch.exp(scores - base[..., None])
            added = torch.einsum("ths,sd->thd", weights, tokens[:, : call.d_v])
            part_out = part_out * torch.exp(part_lse - base)[..., None] + added
            part_lse = new_lse
        if call.attn_sink is not None:
            part_out = part_out * torch.sigmoid(_finite(part_lse) - call.attn_sink.float())[..., None]
        out[part], lse[part] = part_out.to(out.dtype), part_lse
    return out, lse


def _keys(kv: torch.Tensor, part: slice) -> tuple[torch.Tensor, torch.Tensor]:
    """Some keys in f32 with zeros for what is not finite, and which of them had such: f32 [s, d], bool [s].

    A product with a weight of 0 would make NaN of what a query does not see, in it and in its gradient.
    """
    tokens = kv[part].float()
    is_finite = tokens.isfinite()
    return tokens.where(is_finite, 0.0), ~is_finite.all(1)


def _scores(call: Call, rows: slice, among: slice, tokens: torch.Tensor, is_bad: torch.Tensor) -> torch.Tensor:
    """Scores of some rows and keys: NaN for a key that has some, -inf for one that the row does not see."""
    queries = call.q[rows].float().contiguous()  # strides would change the order of a sum
    scores = torch.einsum("thd,sd->ths", queries, tokens) * call.sm_scale
    position = torch.arange(among.start, among.start + tokens.shape[0], device=tokens.device)
    is_seen = (position >= call.starts[rows, None]) & (position < call.ends[rows, None])
    return scores.masked_fill(is_bad, torch.nan).masked_fill(~is_seen[:, None], -torch.inf)


def _finite(lse: torch.Tensor) -> torch.Tensor:
    """What to subtract: 0 where a row has seen nothing yet, for -inf minus -inf would be NaN."""
    return lse.where(lse != -torch.inf, 0.0)


BACKEND = Backend("torch", _run, rank=LAST)
