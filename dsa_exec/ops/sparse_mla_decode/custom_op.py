"""`torch.ops.dsa.sparse_mla_decode`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.layouts.mla_kv import MlaLayout


@torch.library.custom_op("dsa::sparse_mla_decode", mutates_args=())
def sparse_mla_decode_node(
    q: Tensor,
    data: Tensor,
    layout: str,
    slots: Tensor,
    sm_scale: float,
    attn_sink: Tensor | None,
    topk_length: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The public function on the parts of a cache."""
    from dsa_exec.ops.sparse_mla_decode import sparse_mla_decode

    cache = MlaCache(data, MlaLayout.of_spec(layout))
    return sparse_mla_decode(q, cache, slots, sm_scale=sm_scale, attn_sink=attn_sink, topk_length=topk_length)


@sparse_mla_decode_node.register_fake
def _fake(
    q: Tensor,
    _data: Tensor,
    layout: str,
    _slots: Tensor,
    _sm_scale: float,
    _attn_sink: Tensor | None,
    _topk_length: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    t, h, _ = q.shape
    return q.new_empty(t, h, MlaLayout.of_spec(layout).latent_dim), q.new_empty(t, h, dtype=torch.float32)
