"""Pick the best-scored positions of each row: exactly, and the same every time."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.core.checks import MAX_K, Arguments
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.layouts.slot_map_check import check_slot_map
from dsa_exec.layouts.views import SlotMap
from dsa_exec.ops.topk.custom_op import topk_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `topk`."""

    logits: torch.Tensor
    lengths: torch.Tensor
    k: int
    row_starts: torch.Tensor | None
    slot_map: SlotMap | None


def topk(
    logits: torch.Tensor,
    lengths: torch.Tensor,
    k: int,
    *,
    row_starts: torch.Tensor | None = None,
    slot_map: SlotMap | None = None,
) -> torch.Tensor:
    """Positions of the k largest logits of each row, ascending.

    Equal logits: the lowest position wins. NaN counts as -inf. Cells outside a row's window are never looked at, nor
    chosen, whatever they hold. A row with at most k cells gives all of them. No gradient passes.

    Args:
        logits: f32 [t, s], rows as far apart as wanted.
        lengths: int32 [t], cells in each row's window. Less than 1 means none; what goes beyond s is cut.
        k: how many to pick, 1 to 4096.
        row_starts: int32 [t], where each row's window begins; 0 if not given.
        slot_map: give slots of a pool in the place of positions; -1 where a position is on a page that the pool does
            not have.

    Returns:
        int32 [t, k]: positions relative to the row's window (or their slots, in the order of positions), then -1.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, or (on the CPU, and elsewhere under
            `debug_check_indices`) a `row_starts` outside the row.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node():
        if slot_map is None:
            return topk_node(logits, lengths, k, row_starts, None, 0, None, 0)
        table, of_row = slot_map.page_table, slot_map.request_of_row
        numbers = slot_map.slot_count, slot_map.rows_per_request
        return topk_node(logits, lengths, k, row_starts, table, slot_map.page_tokens, of_row, *numbers)
    args = Arguments("topk")
    t, s = args.tensor(logits, "logits", "t s", dtype=torch.float32)
    args.tensor(lengths, "lengths", "t", dtype=torch.int32)
    args.number(k, "k", low=1, high=MAX_K)
    if row_starts is not None:
        args.tensor(row_starts, "row_starts", "t", dtype=torch.int32)
        args.values(row_starts, "row_starts", low=0, high=s, on_accelerators=settings.debug_check_indices)
    if slot_map is not None:
        check_slot_map(args, slot_map, "slot_map", t)
    with torch.no_grad():
        picked: torch.Tensor = run("topk", Call(logits, lengths, k, row_starts, slot_map), logits.device)
    return picked
