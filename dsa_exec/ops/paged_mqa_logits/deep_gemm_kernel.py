"""The call of deep_gemm's paged kernel: what it is given, for a schedule of either form."""

from __future__ import annotations

import torch

from dsa_exec.core import deep_gemm_records as records
from dsa_exec.core.hardware import Capabilities
from dsa_exec.core.head_padding import pad_heads
from dsa_exec.core.paged_schedule import PAGE_TOKENS, PagedSchedule
from dsa_exec.ops.paged_mqa_logits import Call


def logits_of_library(call: Call, schedule: PagedSchedule, hw: Capabilities, width: int) -> torch.Tensor:
    """What deep_gemm leaves for a call: undefined beyond the schedule's lengths, and wrong on pages that are not there.

    Args:
        call: a call that it can take, with rows and pages.
        schedule: a schedule that fits the call.
        hw: the device.
        width: columns; no fewer than the longest of the schedule's lengths.

    Returns:
        f32 [b * n, width], rows further apart than they are wide.
    """
    _, next_n, given, head_dim = call.q.shape
    heads = records.padded_heads(given, hw.arch) or given
    q = pad_heads(call.q.flatten(0, 1), heads)
    weights = pad_heads(call.head_weights[:, :, None], heads)[:, :, 0]
    q = q.view(-1, next_n if schedule.form == "native" else 1, heads, head_dim)
    data = call.cache.data
    keys = data.view(data.shape[0], PAGE_TOKENS, 1, call.cache.layout.token_bytes)
    table = schedule.page_table
    if schedule.cache_pages != data.shape[0]:
        table = table.clamp(0, data.shape[0] - 1)
    library, rest = hw.library("deep_gemm"), (weights, schedule.context_lens, table, schedule.work, width)
    if library.generation == 1:
        logits: torch.Tensor = library.module.fp8_paged_mqa_logits(q, keys, *rest, clean_logits=False)
    else:
        logits = library.module.fp8_fp4_paged_mqa_logits((q, None), keys, *rest)
    return logits
