"""`torch.ops.dsa.index_gather`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import IndexKLayout


@torch.library.custom_op("dsa::index_gather", mutates_args=())
def index_gather_node(
    data: Tensor, layout: str, page_table: Tensor, seq_lens: Tensor, total_tokens: int
) -> tuple[Tensor, Tensor]:
    """The public function on the parts of a cache. No scales are an empty tensor: a node returns tensors alone."""
    from dsa_exec.ops.index_gather import index_gather

    cache = IndexKCache(data, IndexKLayout.of_spec(layout))
    keys, scales = index_gather(cache, page_table, seq_lens, total_tokens)
    return keys, (keys.new_empty(0, dtype=torch.float32) if scales is None else scales)


@index_gather_node.register_fake
def _fake(
    data: Tensor, layout: str, _page_table: Tensor, _seq_lens: Tensor, total_tokens: int
) -> tuple[Tensor, Tensor]:
    laid = IndexKLayout.of_spec(layout)
    quantised = laid.format == "fp8"
    keys = data.new_empty(total_tokens, laid.head_dim, dtype=E4M3 if quantised else data.dtype)
    return keys, data.new_empty(total_tokens if quantised else 0, dtype=torch.float32)
