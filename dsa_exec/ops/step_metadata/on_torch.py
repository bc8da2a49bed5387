"""The specification of `step_metadata`."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.ops.step_metadata import INT32_MAX, Call
from dsa_exec.ops.step_metadata.lengths import cache_lens, expanded_lens


def _run(call: Call) -> None:
    out, n = call.out, call.n
    lens = call.seq_lens.clamp(0, INT32_MAX - call.drafts_to_come)
    out.cache_lens.copy_(cache_lens(call.mode, lens, n))
    b = lens.shape[0]
    out.context_lens.copy_(expanded_lens(call.mode, lens, n).view(b, n))
    requests = torch.arange(b, dtype=torch.int32, device=lens.device)
    out.request_of_row.copy_(requests[:, None].expand(b, n).flatten())
    if call.page_table is not None and out.page_table is not None:
        out.page_table.copy_(call.page_table[:, None].expand(b, n, -1).flatten(0, 1))
    if out.dsa_cache_lens is not None and out.cu_cache_lens is not None and out.cu_dsa_cache_lens is not None:
        out.dsa_cache_lens.copy_(out.row_lens.clamp(max=call.index_topk))
        _sum_up(out.cache_lens, out.cu_cache_lens)
        _sum_up(out.dsa_cache_lens, out.cu_dsa_cache_lens)


def _sum_up(lens: torch.Tensor, sums: torch.Tensor) -> None:
    sums[:1] = 0
    sums[1:] = lens.long().cumsum(0).clamp(max=INT32_MAX)  # as kernels take them: int32, and never below 0


BACKEND = Backend("torch", _run, rank=LAST)
