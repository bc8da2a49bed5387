"""Attention over selected slots of the MLA cache (decode)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.sparse_mla_decode.custom_op import sparse_mla_decode_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `sparse_mla_decode`."""

    q: torch.Tensor
    cache: MlaCache
    slots: torch.Tensor
    sm_scale: float
    attn_sink: torch.Tensor | None
    topk_length: torch.Tensor | None = None

    @property
    def named_slots(self) -> torch.Tensor:
        """The slots with -1 in the place of those that are not looked at, for kernels that take no lengths."""
        if self.topk_length is None:
            return self.slots
        nth = torch.arange(self.slots.shape[1], device=self.slots.device)
        return self.slots.where(nth < self.topk_length[:, None], -1)


def sparse_mla_decode(
    q: torch.Tensor,
    cache: MlaCache,
    slots: torch.Tensor,
    *,
    sm_scale: float,
    attn_sink: torch.Tensor | None = None,
    topk_length: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multi-head latent attention of each query over the slots that it selects, read from the cache as it is stored.

    Args:
        q: float [t, h, latent_dim + rope_dim]: the query absorbed into latent space, then its RoPE part.
        cache: the MLA cache.
        slots: int32 [t, k], each at most once; negative or beyond the cache means none.
        sm_scale: factor of the scores before the softmax.
        attn_sink: f32 [h]: one more score in each head's denominator, without a value.
        topk_length: int32 [t]: no more than so many of each row's slots are looked at, which spares the time of the
            others. Less than 1 means none; what goes beyond k is cut.

    Returns:
        out: [t, h, latent_dim], of q's dtype; zeros where a row selects nothing.
        lse: f32 [t, h], the natural log of the sum of exponentials without the sink; -inf where it selects nothing.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above.
        UnsupportedCall: no backend takes the call.
    """
    if torch.compiler.is_compiling() and is_one_node(q, cache.data, attn_sink):
        return sparse_mla_decode_node(q, cache.data, cache.layout.spec, slots, sm_scale, attn_sink, topk_length)
    args = Arguments("sparse_mla_decode")
    args.kind(cache, "cache", MlaCache)
    args.tensor(q, "q", f"t h {cache.layout.width}", dtype=FLOAT_DTYPES)
    args.device(cache.data, "cache")
    args.tensor(slots, "slots", "t k", dtype=torch.int32)
    args.real(sm_scale, "sm_scale")
    if attn_sink is not None:
        args.tensor(attn_sink, "attn_sink", "h", dtype=torch.float32)
    if topk_length is not None:
        args.tensor(topk_length, "topk_length", "t", dtype=torch.int32)
    call = Call(q, cache, slots, sm_scale, attn_sink, topk_length)
    attended: tuple[torch.Tensor, torch.Tensor] = run("sparse_mla_decode", call, q.device)
    return attended
