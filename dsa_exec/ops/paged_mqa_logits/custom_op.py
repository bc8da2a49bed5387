"""`torch.ops.dsa.paged_mqa_logits`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.layouts.index_k import IndexKLayout


@torch.library.custom_op("dsa::paged_mqa_logits", mutates_args=())
def paged_mqa_logits_node(
    q: Tensor,
    data: Tensor,
    layout: str,
    head_weights: Tensor,
    context_lens: Tensor,
    page_table: Tensor,
    max_context_len: int,
    clean: bool,
) -> Tensor:
    """The public function on the parts of a cache, into a new tensor."""
    from dsa_exec.ops.paged_mqa_logits import paged_mqa_logits

    cache = IndexKCache(data, IndexKLayout.of_spec(layout))
    return paged_mqa_logits(q, cache, head_weights, context_lens, page_table, max_context_len, clean=clean)


@paged_mqa_logits_node.register_fake
def _fake(
    q: Tensor,
    _data: Tensor,
    _layout: str,
    _head_weights: Tensor,
    _context_lens: Tensor,
    _page_table: Tensor,
    max_context_len: int,
    _clean: bool,
) -> Tensor:
    return q.new_empty(q.shape[0] * q.shape[1], max_context_len, dtype=torch.float32)


@torch.library.custom_op("dsa::paged_mqa_logits_out", mutates_args=("out",))
def paged_mqa_logits_out_node(
    q: Tensor,
    data: Tensor,
    layout: str,
    head_weights: Tensor,
    context_lens: Tensor,
    page_table: Tensor,
    max_context_len: int,
    clean: bool,
    out: Tensor,
) -> None:
    """The public function on the parts of a cache, into a given tensor."""
    from dsa_exec.ops.paged_mqa_logits import paged_mqa_logits

    cache = IndexKCache(data, IndexKLayout.of_spec(layout))
    paged_mqa_logits(q, cache, head_weights, context_lens, page_table, max_context_len, clean=clean, out=out)


@paged_mqa_logits_out_node.register_fake
def _fake_out(*_: object) -> None:
    return None
