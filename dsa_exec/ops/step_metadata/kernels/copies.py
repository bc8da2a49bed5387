"""Copies of many index tensors with one launch: each program looks up in a table what it is to copy."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.ops.step_metadata.copies import NUMBERS, CopyTable

ENTRY = tl.constexpr(NUMBERS)


@triton.jit
def _copy(entries_ptr, entry_of_program_ptr, ELEMENTS: tl.constexpr):
    program = tl.program_id(0)
    entry_ptr = entries_ptr + tl.load(entry_of_program_ptr + program) * ENTRY
    # Addresses and distances are int64 from here on.
    source_ptr = tl.load(entry_ptr).to(tl.pointer_type(tl.int32))
    destination_ptr = tl.load(entry_ptr + 1).to(tl.pointer_type(tl.int32))
    columns = tl.load(entry_ptr + 2)
    source_stride = tl.load(entry_ptr + 3)
    destination_stride = tl.load(entry_ptr + 4)
    piece = program - tl.load(entry_ptr + 5)
    pieces = tl.load(entry_ptr + 6)
    row = piece // pieces
    places = piece % pieces * ELEMENTS + tl.arange(0, ELEMENTS)
    is_there = places < columns
    values = tl.load(source_ptr + row * source_stride + places, mask=is_there, other=0)
    tl.store(destination_ptr + row * destination_stride + places, values, mask=is_there)


def launch_copies(table: CopyTable) -> None:
    """Copy what stands in the table, which has at least one program."""
    with torch.cuda.device_of(table.entries):
        _copy[(table.entry_of_program.shape[0],)](
            table.entries,
            table.entry_of_program,
            ELEMENTS=table.launch.elements,
            num_warps=table.launch.warps,
        )
