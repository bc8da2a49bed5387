"""`index_select` made of the logits op and `topk`, chunk by chunk. The backends of those two are their own settings."""

from __future__ import annotations

import torch

from dsa_exec.dispatch.backend import LAST, Backend
from dsa_exec.dispatch.registry import op_function
from dsa_exec.layouts.views import SlotMap
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk
from dsa_exec.ops.index_select import LOGIT_BYTES, Call, GatheredKeys, PagedKeys


def _run(call: Call) -> tuple[torch.Tensor, int]:
    if isinstance(call.keys, GatheredKeys):
        return _gathered(call, call.keys)
    return _paged(call, call.keys)


def _gathered(call: Call, keys: GatheredKeys) -> tuple[torch.Tensor, int]:
    mqa_logits, topk = op_function("mqa_logits"), op_function("topk")
    rows = call.q.shape[0]
    at_once = rows_per_chunk(rows, call.width * LOGIT_BYTES, call.budget_bytes)
    workspace = _workspace(call, at_once, rows)
    indices = torch.full((rows, call.k), -1, dtype=torch.int32, device=call.q.device)
    chunks = list(row_chunks(rows, at_once))
    for part in chunks:
        starts, ends = keys.starts[part], keys.ends[part]
        logits = mqa_logits(
            call.q[part],
            keys.keys,
            keys.scales,
            call.head_weights[part],
            starts,
            ends,
            clean=False,
            out=None if workspace is None else workspace[: starts.shape[0]],
        )
        indices[part] = topk(logits, ends - starts, call.k, row_starts=starts)
    return indices, len(chunks)


def _paged(call: Call, keys: PagedKeys) -> tuple[torch.Tensor, int]:
    paged_mqa_logits, topk = op_function("paged_mqa_logits"), op_function("topk")
    requests, next_n = call.q.shape[:2]
    at_once = rows_per_chunk(requests, next_n * call.width * LOGIT_BYTES, call.budget_bytes)
    workspace = _workspace(call, at_once * next_n, requests * next_n)
    indices = torch.full((requests * next_n, call.k), -1, dtype=torch.int32, device=call.q.device)
    chunks = list(row_chunks(requests, at_once))
    for part in chunks:
        lens, table = keys.context_lens[part], keys.page_table[part]
        row_lens = lens.flatten().contiguous()  # of one column, a part of wider rows would stay one
        rows = slice(part.start * next_n, part.stop * next_n)
        logits = paged_mqa_logits(
            call.q[part],
            keys.cache,
            call.head_weights[rows],
            lens,
            table,
            call.width,
            clean=False,
            out=None if workspace is None else workspace[: lens.numel()],
            schedule=keys.schedule if len(chunks) == 1 else None,
        )
        request_of_row = torch.arange(lens.shape[0], device=lens.device).repeat_interleave(next_n)
        slot_map = SlotMap(table, keys.cache.layout.page_tokens, request_of_row, keys.cache.slots)
        if call.fuse_topk:
            indices[rows] = topk(logits, row_lens, call.k, slot_map=slot_map)
        else:
            indices[rows] = slot_map.slots(topk(logits, row_lens, call.k)).to(torch.int32)
    return indices, len(chunks)


def _workspace(call: Call, at_once: int, rows: int) -> torch.Tensor | None:
    # One buffer for all chunks: a new one for each would let the allocator grow with the context. A single chunk needs
    # none, and spares a copy where the logits are of a library that writes into a tensor of its own.
    if at_once >= rows:
        return None
    return torch.empty(at_once, call.width, dtype=torch.float32, device=call.q.device)


BACKEND = Backend("torch", _run, rank=LAST)
