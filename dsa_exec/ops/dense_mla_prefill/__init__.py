"""Attention over a window of gathered tokens (prefill of prompts too short to select from)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.dense_mla_prefill.custom_op import dense_mla_prefill_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `dense_mla_prefill`."""

    q: torch.Tensor
    kv: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    sm_scale: float
    d_v: int
    attn_sink: torch.Tensor | None


def dense_mla_prefill(
    q: torch.Tensor,
    kv: torch.Tensor,
    starts: torch.Tensor,
    ends: torch.Tensor,
    *,
    sm_scale: float,
    d_v: int = 512,
    attn_sink: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multi-head latent attention of each query over all rows of its window.

    Args:
        q: float [t, h, d]: the query absorbed into latent space, then its RoPE part.
        kv: [s, d], of q's dtype: latents, then RoPE parts (`kv_gather`).
        starts: int32 [t], the first row of kv visible to each query.
        ends: int32 [t], one past the last. A query may see nothing.
        sm_scale: factor of the scores before the softmax.
        d_v: how many leading channels of a row are its value.
        attn_sink: f32 [h]: one more score in each head's denominator, without a value.

    Returns:
        out: [t, h, d_v], of q's dtype; zeros where a query sees nothing.
        lse: f32 [t, h], the natural log of the sum of exponentials without the sink; -inf where it sees nothing.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, or (on the CPU, and elsewhere under
            `debug_check_indices`) a window outside kv. Unchecked, such a window is cut to kv.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node(q, kv, attn_sink):
        return dense_mla_prefill_node(q, kv, starts, ends, sm_scale, d_v, attn_sink)
    args = Arguments("dense_mla_prefill")
    _, _, d = args.tensor(q, "q", "t h d", dtype=FLOAT_DTYPES)
    key_count, _ = args.tensor(kv, "kv", "s d", dtype=q.dtype)
    for name, bound in (("starts", starts), ("ends", ends)):
        args.tensor(bound, name, "t", dtype=torch.int32)
        args.values(bound, name, low=0, high=key_count, on_accelerators=settings.debug_check_indices)
    args.number(d_v, "d_v", low=1, high=d)
    args.real(sm_scale, "sm_scale")
    if attn_sink is not None:
        args.tensor(attn_sink, "attn_sink", "h", dtype=torch.float32)
    call = Call(q, kv, starts, ends, sm_scale, d_v, attn_sink)
    attended: tuple[torch.Tensor, torch.Tensor] = run("dense_mla_prefill", call, q.device)
    return attended
