"""`paged_mqa_logits` by deep_gemm: plain e4m3 pages of 64 tokens, both generations of its interface.

It is given lengths and pages that it may read, whatever the call's are, and what it leaves undefined is settled after
it. It writes into a tensor of its own: without `out` that is the result, with `out` it is copied, some requests at a
time.
"""

from __future__ import annotations

import dataclasses

import torch

from dsa_exec.core import deep_gemm_records as records
from dsa_exec.core.errors import ShapeError
from dsa_exec.core.hardware import Capabilities, capabilities
from dsa_exec.core.paged_schedule import PAGE_TOKENS, PagedSchedule
from dsa_exec.dispatch.backend import Backend
from dsa_exec.dispatch.gradients import refuses_gradients
from dsa_exec.memory.footprint import Footprint
from dsa_exec.memory.row_chunks import row_chunks, rows_per_chunk
from dsa_exec.ops.paged_mqa_logits import Call
from dsa_exec.ops.paged_mqa_logits.deep_gemm_kernel import logits_of_library
from dsa_exec.ops.paged_mqa_logits.schedule import make_schedule

SCRATCH_BYTES = 256 * 2**20
"""What it may hold beside `out` where it makes its own schedules; a request takes what it takes."""

SPLIT_KEYS = 256
"""It rounds logits of a row up to that."""

MOST_ROWS = 58_112
"""Rows that fit the shared memory of the one block that makes a schedule."""

MOST_COLUMNS = 2**31 - 2**10
"""Positions are numbered in int32, rounded up to whole spans."""


def _refuses(call: Call, hw: Capabilities) -> str | None:
    heads, layout = call.q.shape[2], call.cache.layout
    sentence = records.refuses_hardware(hw) or refuses_gradients(call) or records.refuses_heads(heads, hw.arch)
    if sentence is not None:
        return sentence
    if layout.format != "fp8" or layout.order != "plain" or layout.page_tokens != PAGE_TOKENS:
        return (
            f"the cache has {layout.order} pages of {layout.page_tokens} in the {layout.format} format, "
            f"deep_gemm takes plain pages of {PAGE_TOKENS} in the fp8 format"
        )
    if (rows := call.q.shape[0] * call.q.shape[1]) > MOST_ROWS:
        return f"{rows} rows, deep_gemm shares out the work of {MOST_ROWS} at most"
    if call.max_context_len > MOST_COLUMNS:
        return f"max_context_len={call.max_context_len}, deep_gemm numbers up to {MOST_COLUMNS} positions in int32"
    begin = call.cache.data.data_ptr() % 16
    return f"the cache begins {begin} bytes past a multiple of 16, the copy engine takes multiples" if begin else None


def _declines(call: Call, hw: Capabilities) -> str | None:
    return records.declines_hardware(hw, call.q.shape[2])


def _adapts(call: Call, hw: Capabilities) -> str | None:
    return records.adapts_heads(call.q.shape[2], hw.arch)


def _run(call: Call) -> torch.Tensor:
    requests, next_n, _, _ = call.q.shape
    width, out = call.max_context_len, call.out
    if requests * next_n == 0 or width == 0 or call.page_table.shape[1] == 0:
        out = call.q.new_empty(requests * next_n, width, dtype=torch.float32) if out is None else out
        return out.fill_(-torch.inf)
    with torch.cuda.device_of(call.q):
        if out is None or call.schedule is not None:
            return _scored(call)
        at_once = rows_per_chunk(requests, next_n * (width + 256) * 4, SCRATCH_BYTES)
        for part in row_chunks(requests, at_once):
            _scored(_part(call, part, out))
    return out


def _part(call: Call, part: slice, out: torch.Tensor) -> Call:
    """The call for some of its requests."""
    next_n = call.q.shape[1]
    rows = slice(part.start * next_n, part.stop * next_n)
    return dataclasses.replace(
        call,
        q=call.q[part],
        head_weights=call.head_weights[rows],
        context_lens=call.context_lens[part],
        page_table=call.page_table[part],
        out=out[rows],
    )


def _scored(call: Call) -> torch.Tensor:
    from dsa_exec.ops.paged_mqa_logits.kernels.settle import settle

    hw = capabilities(call.q.device)
    longest = call.page_table.shape[1] * PAGE_TOKENS
    if call.schedule is None:
        # Expanded takes rows of any lengths, and may go no further than the columns that are wanted.
        width = call.max_context_len
        lens, table = call.context_lens, call.page_table
        pages = call.cache.data.shape[0]
        schedule = make_schedule("expanded", lens, table, hw, longest=min(longest, width), cache_pages=pages)
    else:
        width = max(call.max_context_len, longest)
        schedule = call.schedule
        _require_current(schedule, hw)
    logits = logits_of_library(call, schedule, hw, width)
    return settle(call, logits[:, : call.max_context_len], call.out)


def _footprint(call: Call, hw: Capabilities) -> Footprint:
    _, _, given, d = call.q.shape
    pages = call.page_table.shape[1]
    heads = records.padded_heads(given, hw.arch) or given
    own = -(-max(call.max_context_len, pages * PAGE_TOKENS) // SPLIT_KEYS) * SPLIT_KEYS * 4
    # Padded queries and head weights lie in memory for a power of two of rows; others may be copied.
    queries = heads * (d + 4) * (1 if heads == given else 2)
    # The table cut to pages that there are, and a row of it for each row of queries; lengths.
    tables = pages * 4 * 2 + 3 * 4
    return Footprint((records.multiprocessors(hw) + 1) * 8, queries + tables, own_row_bytes=own)


def _require_current(schedule: PagedSchedule, hw: Capabilities) -> None:
    """Check a schedule, which fits the call, against the library as it is now.

    Raises:
        ShapeError: it is native with rows that the library does not take, or for other multiprocessors.
    """
    n, num_sms = schedule.next_n, records.multiprocessors(hw)
    slots = num_sms
    if schedule.form == "native":
        is_native, why = records.native_next_n(n, hw)
        if not is_native:
            raise ShapeError("paged_mqa_logits", "schedule", f"is {schedule.described}", f"expanded rows ({why})")
        slots = records.shares(n, hw, num_sms)
    if schedule.num_sms != num_sms or schedule.work.shape[0] != slots + 1:
        came = f"was made for {schedule.num_sms} multiprocessors, in {schedule.work.shape[0] - 1} shares"
        wanted = f"{num_sms} multiprocessors, in {slots} shares, as deep_gemm uses now (make it again)"
        raise ShapeError("paged_mqa_logits", "schedule", came, wanted)


BACKEND = Backend("deep_gemm", _run, _refuses, _declines, rank=15, adapts=_adapts, footprint=_footprint)
