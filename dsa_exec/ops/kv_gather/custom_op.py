"""`torch.ops.dsa.kv_gather`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.layouts.mla_kv import MlaLayout


@torch.library.custom_op("dsa::kv_gather", mutates_args=())
def kv_gather_node(
    data: Tensor, layout: str, page_table: Tensor, seq_lens: Tensor, total_tokens: int, dtype: torch.dtype
) -> Tensor:
    """The public function on the parts of a cache."""
    from dsa_exec.ops.kv_gather import kv_gather

    return kv_gather(MlaCache(data, MlaLayout.of_spec(layout)), page_table, seq_lens, total_tokens, dtype=dtype)


@kv_gather_node.register_fake
def _fake(
    data: Tensor, layout: str, _page_table: Tensor, _seq_lens: Tensor, total_tokens: int, dtype: torch.dtype
) -> Tensor:
    return data.new_empty(total_tokens, MlaLayout.of_spec(layout).width, dtype=dtype)
