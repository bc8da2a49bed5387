"""Attention over selected rows of gathered tokens (prefill)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.sparse_mla_prefill.custom_op import sparse_mla_prefill_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `sparse_mla_prefill`."""

    q: torch.Tensor
    kv: torch.Tensor
    indices: torch.Tensor
    sm_scale: float
    d_v: int
    attn_sink: torch.Tensor | None


def sparse_mla_prefill(
    q: torch.Tensor,
    kv: torch.Tensor,
    indices: torch.Tensor,
    *,
    sm_scale: float,
    d_v: int = 512,
    attn_sink: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multi-head latent attention of each query over the rows that its indices name.

    Args:
        q: float [t, h, d]: the query absorbed into latent space, then its RoPE part.
        kv: [s, d], of q's dtype: latents, then RoPE parts (`kv_gather`).
        indices: int32 [t, k], rows of kv, each at most once; negative or from s on means none.
        sm_scale: factor of the scores before the softmax.
        d_v: how many leading channels of a row are its value.
        attn_sink: f32 [h]: one more score in each head's denominator, without a value.

    Returns:
        out: [t, h, d_v], of q's dtype; zeros where a row selects nothing.
        lse: f32 [t, h], the natural log of the sum of exponentials without the sink; -inf where it selects nothing.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node(q, kv, attn_sink):
        return sparse_mla_prefill_node(q, kv, indices, sm_scale, d_v, attn_sink)
    args = Arguments("sparse_mla_prefill")
    _, _, d = args.tensor(q, "q", "t h d", dtype=FLOAT_DTYPES)
    args.tensor(kv, "kv", "s d", dtype=q.dtype)
    args.tensor(indices, "indices", "t k", dtype=torch.int32)
    args.number(d_v, "d_v", low=1, high=d)
    args.real(sm_scale, "sm_scale")
    if attn_sink is not None:
        args.tensor(attn_sink, "attn_sink", "h", dtype=torch.float32)
    call = Call(q, kv, indices, sm_scale, d_v, attn_sink)
    attended: tuple[torch.Tensor, torch.Tensor] = run("sparse_mla_prefill", call, q.device)
    return attended
