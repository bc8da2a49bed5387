"""The indexer's logits in a prefill: how many chunks of rows they come in, and what a chunk takes."""

from __future__ import annotations

from collections.abc import Iterable

from dsa_config import settings
from dsa_exec.cli.plan.report import LogitsBudget, LogitsChunks, RankMemory
from dsa_exec.cli.show_report import size
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.memory.chunk_plan import WORKSPACE_BYTES, plan_chunks
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.geometry import INDEXED_RATIO, ModelGeometry
from dsa_exec.memory.logits_budget import TOTAL_FRACTION, logits_budget

LOGIT_BYTES = 4
INDEX_BYTES = 4
NUMBERS_BYTES = 24
"""What the lengths and the request of a row take (`ops/index_select/on_torch.py`)."""

ALIGNED_LOGITS = 32
"""Logits that a row is rounded up to, where kernels of this project write them (`core/logits_workspace.py`)."""


def budget_of(memory: RankMemory, mem_fraction_static: float) -> LogitsBudget:
    """The budget while a graph is captured, which follows from total memory and settings alone.

    Outside capture it is this or less: then memory that is free at the call counts too.

    Raises:
        SettingError: a setting cannot be read.
    """
    share, cap = settings.mqa_logits_free_mem_fraction, settings.mqa_logits_max_chunk_bytes
    found = logits_budget(
        MemoryReading(memory.gpu_bytes, memory.dynamic_bytes),
        free_mem_fraction=share,
        mem_fraction_static=mem_fraction_static,
        max_chunk_bytes=cap,
        capturing=True,
    )
    why = f"{size(memory.dynamic_bytes)} outside weights and pools x mqa_logits_free_mem_fraction={share:g}"
    if found.static_bytes == int(memory.gpu_bytes * TOTAL_FRACTION):
        why = f"{TOTAL_FRACTION} of the device, which no budget exceeds"
    if found.bytes == found.cap_bytes:
        why = f"mqa_logits_max_chunk_bytes={found.cap_bytes}"
    return LogitsBudget(
        bytes=found.bytes,
        static_bytes=found.static_bytes,
        cap_bytes=found.cap_bytes,
        most_logits_bytes=min(found.bytes, cap or WORKSPACE_BYTES),
        free_mem_fraction=share,
        why=why,
    )


def footprint_of(geometry: ModelGeometry, keys: int) -> Footprint:
    """What a row takes where kernels of this project score it: logits in a workspace, what it selects, its lengths."""
    logits = -(-keys // ALIGNED_LOGITS) * ALIGNED_LOGITS
    return Footprint(
        row_bytes=geometry.index_topk * INDEX_BYTES + NUMBERS_BYTES, workspace_row_bytes=logits * LOGIT_BYTES
    )


def chunks_of(geometry: ModelGeometry, budget: LogitsBudget, context: int, rows: int) -> LogitsChunks:
    """How a prefill of one request is scored by one layer.

    Args:
        geometry: the model.
        budget: for one chunk.
        context: tokens of the request, those of the prefill included.
        rows: query rows on one rank.
    """
    keys = context // INDEXED_RATIO if geometry.compressed else context
    planned = plan_chunks(
        rows, footprint_of(geometry, keys), budget.bytes, most_logits_bytes=budget.cap_bytes or WORKSPACE_BYTES
    )
    return LogitsChunks(
        context_tokens=context,
        keys=keys,
        rows=rows,
        chunks=-(-rows // planned.units_at_once),
        rows_per_chunk=planned.units_at_once,
        peak_bytes=planned.bytes,
        is_over_budget=planned.least_bytes > budget.bytes,
    )


def chunk_table(
    geometry: ModelGeometry, budget: LogitsBudget, contexts: Iterable[int], rows: Iterable[int]
) -> list[LogitsChunks]:
    """Every context with every number of rows that it has; nothing for a model without an indexer."""
    sizes = tuple(rows)
    if not any(geometry.own_indexers):
        return []
    return [chunks_of(geometry, budget, it, size_) for it in contexts for size_ in sizes if size_ <= it]
