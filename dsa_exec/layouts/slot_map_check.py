"""The check of an argument that says how positions become slots."""

from __future__ import annotations

import torch

from dsa_config import settings
from dsa_exec.core.checks import INDEX_DTYPES, Arguments
from dsa_exec.core.errors import RangeError
from dsa_exec.layouts.views import SlotMap


def check_slot_map(args: Arguments, slot_map: SlotMap, name: str, rows: int) -> None:
    """Check every field of a slot map for so many rows, whose dimension is `t`.

    Raises:
        ArgumentError: it is none, or a field is not as `SlotMap` says; or (on the CPU, and elsewhere under
            `debug_check_indices`) a row's request is not in the page table.
    """
    args.kind(slot_map, name, SlotMap)
    args.number(slot_map.page_tokens, f"{name}.page_tokens", low=1)
    args.number(slot_map.slot_count, f"{name}.slot_count", low=0, high=2**31)
    b, _ = args.tensor(slot_map.page_table, f"{name}.page_table", "b pages", dtype=torch.int32)
    of_row, checked = slot_map.request_of_row, settings.debug_check_indices
    if of_row is not None:
        args.tensor(of_row, f"{name}.request_of_row", "t", dtype=INDEX_DTYPES)
        args.values(of_row, f"{name}.request_of_row", low=0, high=b - 1, on_accelerators=checked)
        return
    each = args.number(slot_map.rows_per_request, f"{name}.rows_per_request", low=0)
    if rows != b * each:
        wanted = f"{rows} rows over the {b} requests of {name}.page_table"
        raise RangeError(args.op, f"{name}.rows_per_request", f"is {each}", wanted)
