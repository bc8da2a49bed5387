"""`torch.ops.dsa.topk_merge`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.layouts.key_split import KeyPart, KeySplit
from dsa_exec.layouts.views import SlotMap


@torch.library.custom_op("dsa::topk_merge", mutates_args=())
def topk_merge_node(
    candidates: Tensor,
    k: int,
    bounds: Tensor | None,
    in_order: bool,
    parts: int,
    block: int,
    blocks: Tensor | None,
    part: int,
    page_table: Tensor | None,
    page_tokens: int,
    request_of_row: Tensor | None,
    slot_count: int,
    rows_per_request: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The public function on the numbers of `keep`, if there are `parts`, and of a slot map, if it has a page table."""
    from dsa_exec.ops.topk_merge import topk_merge

    keep, slot_map = None, None
    if parts > 0:
        keep = KeyPart(KeySplit(parts, block if blocks is None else blocks), part)
    if page_table is not None:
        slot_map = SlotMap(page_table, page_tokens, request_of_row, slot_count, rows_per_request)
    merged = topk_merge(candidates, k, keep=keep, bounds=bounds, slot_map=slot_map, in_order=in_order)
    # What a node gives is none of its arguments.
    return merged.picked, merged.counts, merged.bounds if bounds is None else merged.bounds.clone()


@topk_merge_node.register_fake
def _fake(candidates: Tensor, k: int, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    rows = candidates.shape[1]
    return candidates.new_empty(rows, k), candidates.new_empty(rows), candidates.new_empty(rows, 2)
