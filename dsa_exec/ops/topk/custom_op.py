"""`torch.ops.dsa.topk`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.layouts.views import SlotMap


@torch.library.custom_op("dsa::topk", mutates_args=())
def topk_node(
    logits: Tensor,
    lengths: Tensor,
    k: int,
    row_starts: Tensor | None,
    page_table: Tensor | None,
    page_tokens: int,
    request_of_row: Tensor | None,
    slot_count: int,
    rows_per_request: int = 1,
) -> Tensor:
    """The public function on the parts of a slot map, which is given if `page_table` is."""
    from dsa_exec.ops.topk import topk

    slot_map = None
    if page_table is not None:
        slot_map = SlotMap(page_table, page_tokens, request_of_row, slot_count, rows_per_request)
    return topk(logits, lengths, k, row_starts=row_starts, slot_map=slot_map)


@topk_node.register_fake
def _fake(logits: Tensor, _lengths: Tensor, k: int, *_: object) -> Tensor:
    return logits.new_empty(logits.shape[0], k, dtype=torch.int32)
