"""The chunks of a selection: what the budget is now, how many rows it has room for, and the loop over them.

Every caller's rows come through here: gathered keys of a prefill or of one request, the rows of a context-parallel
rank, paged keys of decode and verification. No collective is called, and nothing waits for the device.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

import torch

from dsa_config import settings
from dsa_exec.core.hardware import MemoryReading, capabilities, memory_reading, total_memory_bytes
from dsa_exec.core.logits_workspace import LogitsWorkspace
from dsa_exec.core.out_of_memory import mib
from dsa_exec.dispatch.chunked import run_in_chunks
from dsa_exec.dispatch.select import decide, note, run_decided
from dsa_exec.memory.chunk_plan import ChunkPlan, plan_call
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.logits_budget import LogitsBudget, asks_for_free_memory

SMALL_CHUNK_LOGITS = 32 * 2**20
"""Chunks of fewer logits keep an H100 busy for less time than the host takes for one, some 0.35 ms."""

_log = logging.getLogger("dsa_exec.memory")
_said: set[torch.device] = set()


def plan_now(
    device: torch.device,
    units: int,
    unit_rows: int,
    width: int,
    footprint: Footprint,
    memory: MemoryReading | None,
    *,
    capturing: bool = False,
    held_bytes: int = 0,
) -> tuple[LogitsBudget, ChunkPlan]:
    """Budget and chunks of a call, by settings and memory as they are. The driver is asked once at most.

    Args:
        device: where the call runs.
        units: rows, or requests with all their rows.
        unit_rows: rows of a unit.
        width: logits of a row.
        footprint: what the call allocates.
        memory: the device's memory if the caller knows it.
        capturing: a CUDA graph is being captured.
        held_bytes: what our workspace holds, which the call may use.
    """
    available = None
    if memory is not None:
        total = memory.total_bytes
        if not capturing:
            available = memory.available_bytes
    elif not capturing and asks_for_free_memory(units * unit_rows, width):
        memory = memory_reading(device)
        total, available = memory.total_bytes, memory.available_bytes + held_bytes
    else:
        total = total_memory_bytes(device)
    return plan_call(
        total,
        available,
        settings.mqa_logits_free_mem_fraction,
        settings.mem_fraction_static,
        settings.mqa_logits_max_chunk_bytes,
        capabilities(device).most_tensor_bytes,
        units,
        unit_rows,
        footprint,
    )


def select_in_chunks(
    call: Any,
    memory: MemoryReading | None,
    workspace: LogitsWorkspace,
    out: torch.Tensor | None,
    *,
    capturing: bool,
) -> tuple[torch.Tensor, LogitsBudget, ChunkPlan, int, int]:
    """Select for all rows of a call.

    Args:
        call: of `index_select`.
        memory: the device's memory if the caller knows it.
        workspace: for the logits.
        out: int32 [t, k] to write into, or None.
        capturing: a CUDA graph is being captured.

    Returns:
        What was selected, int32 [t, k], or [t, 2, k] of a call that is `scored`; the budget and the plan that were
        followed; chunks, and how often one was done again.

    Raises:
        OutOfMemory: memory ran out with a single row or request at a time.
        UnsupportedCall: no backend takes the call.
    """
    device, units, unit_rows = call.q.device, call.units, call.unit_rows
    decision = decide("index_select", call, device, noted=False)
    footprint, held = decision.footprint, workspace.bytes
    sizes = units, unit_rows, call.width
    budget, plan = plan_now(device, *sizes, footprint, memory, capturing=capturing, held_bytes=held)
    if plan.units_at_once < units and plan.units_at_once * unit_rows * call.width < SMALL_CHUNK_LOGITS:
        # Without room for logits another backend may be the better choice: one that has none.
        scarce = dataclasses.replace(call, scarce=True)
        other = decide("index_select", scarce, device, noted=False)
        if other.backend is not decision.backend:
            planned = plan_now(device, *sizes, other.footprint, memory, capturing=capturing, held_bytes=held)
            if planned[1].units_at_once > plan.units_at_once:
                call, decision, footprint, (budget, plan) = scarce, other, other.footprint, planned
    note(decision)
    workspace.bound(plan.workspace_bytes, footprint.own_row_bytes, budget.bytes)
    if plan.least_bytes > budget.bytes and device not in _said:
        _report_too_small(device, plan, budget, unit_rows)
    indices = out

    def select(part: slice) -> None:
        nonlocal indices
        is_whole = part.stop - part.start == units
        picked = run_decided(decision, call if is_whole else call.part(part))
        if is_whole and indices is None:
            indices = picked
            return
        if indices is None:
            indices = picked.new_empty(units * unit_rows, *picked.shape[1:])
        indices[part.start * unit_rows : part.stop * unit_rows] = picked  # last of all: now these rows are done

    chunks, retries = run_in_chunks(
        "index_select",
        units,
        plan.units_at_once,
        select,
        footprint.bytes,
        device=device,
        unit_rows=unit_rows,
        capturing=capturing,
        release=workspace.release,
    )
    if indices is None:  # no row
        shape = (0, 2, call.k) if call.scored else (0, call.k)
        indices = call.q.new_empty(shape, dtype=torch.int32)
    return indices, budget, plan, chunks, retries


def _report_too_small(device: torch.device, plan: ChunkPlan, budget: LogitsBudget, unit_rows: int) -> None:
    """Say once for a device that the budget is exceeded, and by what."""
    _said.add(device)
    limits = [f"{budget.static_bytes} as a share of total memory"]
    if budget.live_bytes is not None:
        limits.append(f"{budget.live_bytes} as a share of free memory")
    if budget.cap_bytes is not None:
        limits.append(f"{budget.cap_bytes} by mqa_logits_max_chunk_bytes")
    if budget.tensor_bytes is not None:
        limits.append(f"{budget.tensor_bytes} that kernels can address")
    what = "a row" if unit_rows == 1 else f"a request's {unit_rows} rows"
    _log.warning(
        "index_select on %s: %s may take %d bytes (%s), more than the budget of %d (the least of %s); they are done "
        "one by one all the same. A larger mqa_logits_free_mem_fraction or mqa_logits_max_chunk_bytes, or a smaller "
        "share of the device for weights and pools, would make room (docs/memory.md)",
        device,
        what,
        plan.least_bytes,
        mib(plan.least_bytes),
        budget.bytes,
        ", ".join(limits),
    )
