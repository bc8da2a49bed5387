"""`torch.ops.dsa.paged_mqa_logits`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.paged_schedule import schedule_of_parts
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
    form: str,
    schedule: list[Tensor],
    numbers: list[int],
) -> Tensor:
    """The public function on the parts of a cache and a schedule, into a new tensor."""
    # A graph is told that its rows lie side by side, as not every backend would have them.
    out = q.new_empty(q.shape[0] * q.shape[1], max_context_len, dtype=torch.float32)
    args = q, data, layout, head_weights, context_lens, page_table, max_context_len, clean
    _write(*args, out, form, schedule, numbers)
    return out


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
    _form: str,
    _schedule: list[Tensor],
    _numbers: list[int],
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
    form: str,
    schedule: list[Tensor],
    numbers: list[int],
) -> None:
    """The public function on the parts of a cache and a schedule, into a given tensor."""
    args = q, data, layout, head_weights, context_lens, page_table, max_context_len, clean
    _write(*args, out, form, schedule, numbers)


@paged_mqa_logits_out_node.register_fake
def _fake_out(*_: object) -> None:
    return None


def _write(
    q: Tensor,
    data: Tensor,
    layout: str,
    head_weights: Tensor,
    context_lens: Tensor,
    page_table: Tensor,
    max_context_len: int,
    clean: bool,
    out: Tensor,
    form: str,
    schedule: list[Tensor],
    numbers: list[int],
) -> None:
    from dsa_exec.ops.paged_mqa_logits import paged_mqa_logits

    cache = IndexKCache(data, IndexKLayout.of_spec(layout))
    shared = schedule_of_parts(form, schedule, numbers)
    inputs = q, cache, head_weights, context_lens, page_table, max_context_len
    paged_mqa_logits(*inputs, clean=clean, out=out, schedule=shared)
