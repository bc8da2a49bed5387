"""A context that grows for hours, in miniature: what torch's allocator holds stays what it is."""

from __future__ import annotations

import torch

from benchmarks.budget.record import Growth
from benchmarks.budget.work import Prefill
from dsa_exec.core.logits_workspace import forget_workspaces, kept_bytes
from dsa_exec.ops.index_select import index_select

STEPS, WARM_UP = 200, 20
SMALL_SEGMENT_BYTES = 2 * 2**20
"""What torch's allocator asks for when a tensor below 1 MiB finds no place, such as what a small chunk picked: it does
so once, and the segment then serves all."""
FIRST, LAST = 1024, 262_144


def contexts() -> list[int]:
    """The context of each step, in multiples of 64 tokens."""
    return [FIRST + (LAST - FIRST) * step // (STEPS - 1) // 64 * 64 for step in range(STEPS)]


def growth(work: Prefill) -> Growth:
    """Select for the same rows over ever more keys."""
    device = work.q.device
    forget_workspaces(device)
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device) - kept_bytes(device)
    torch.cuda.reset_peak_memory_stats(device)
    reserved = []
    for context in contexts():
        index_select(*work.arguments(context), out=work.out)
        reserved.append(torch.cuda.memory_reserved(device))
    torch.cuda.synchronize(device)
    more = max(reserved[WARM_UP:]) - reserved[WARM_UP - 1]
    return Growth(
        contexts=contexts(),
        reserved_bytes=reserved,
        warm_up=WARM_UP,
        growth_bytes=more,
        flat=more <= SMALL_SEGMENT_BYTES,
        peak_extra_bytes=torch.cuda.max_memory_allocated(device) - before,
    )
