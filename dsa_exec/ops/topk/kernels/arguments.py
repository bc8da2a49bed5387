"""The arguments that the kernels of one row a program or cluster have in common."""

from __future__ import annotations

from typing import Any

import torch

from dsa_exec.ops.topk import Call


def row_arguments(call: Call, picked: torch.Tensor) -> tuple[tuple[Any, ...], dict[str, bool]]:
    """Arguments by place, from `logits_ptr` to `rows_per_request`, and what of them is used.

    Args:
        call: the call; what it does not have is given as something that is not looked at.
        picked: int32 [t, k], to be filled.
    """
    starts, slot_map, unused = call.row_starts, call.slot_map, call.lengths
    of_row = None if slot_map is None else slot_map.request_of_row
    by_place = (
        call.logits,
        call.lengths,
        unused if starts is None else starts,
        picked,
        unused if slot_map is None else slot_map.page_table,
        unused if of_row is None else of_row,
        call.logits.stride(0),
        0 if slot_map is None else slot_map.page_table.stride(0),
        call.logits.shape[1],
        call.k,
        0 if slot_map is None else slot_map.page_table.shape[0],
        0 if slot_map is None else slot_map.page_table.shape[1],
        1 if slot_map is None else slot_map.page_tokens,
        0 if slot_map is None else slot_map.slot_count,
        1 if slot_map is None else slot_map.rows_per_request,
    )
    return by_place, {"WINDOWS": starts is not None, "TO_SLOTS": slot_map is not None, "LISTED": of_row is not None}
