"""All metadata of a step with one launch: programs that take lengths, two that sum lengths up, and the others that copy
a piece of a row's pages each. None waits for what another stores.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.ops.step_metadata import INT32_MAX, Call
from dsa_exec.ops.step_metadata.launch import PortableLaunch

LONGEST = tl.constexpr(INT32_MAX)


@triton.jit
def _in_cache(seq_lens_ptr, requests, is_there, drafts_to_come):
    """Tokens that are in the cache when the rows run; what is outside int32 is cut."""
    lens = tl.load(seq_lens_ptr + requests, mask=is_there, other=0).to(tl.int64)
    return (tl.minimum(tl.maximum(lens, 0), LONGEST - drafts_to_come) + drafts_to_come).to(tl.int32)


@triton.jit
def _sum_up(sums_ptr, seq_lens_ptr, count, n, drafts_to_come, most, SUMMED: tl.constexpr):
    """The sums of what `count` rows see, n rows a request and at most `most` each, before each row and of all."""
    tl.store(sums_ptr, 0)
    before = tl.zeros([], dtype=tl.int64)
    for start in range(0, count, SUMMED):
        rows = start + tl.arange(0, SUMMED)
        is_row = rows < count
        last = _in_cache(seq_lens_ptr, rows // n, is_row, drafts_to_come)
        seen = tl.minimum(tl.maximum(last - (n - 1 - rows % n), 0), most)
        seen = tl.where(is_row, seen, 0).to(tl.int64)
        sums = tl.minimum(before + tl.cumsum(seen, 0), LONGEST)
        tl.store(sums_ptr + 1 + rows, sums.to(tl.int32), mask=is_row)
        before += tl.sum(seen, 0)


@triton.jit(do_not_specialize=["row_count", "n", "drafts_to_come", "index_topk", "length_programs"])
def _expand(
    seq_lens_ptr,
    cache_lens_ptr,
    context_lens_ptr,
    request_of_row_ptr,
    dsa_cache_lens_ptr,
    cu_cache_lens_ptr,
    cu_dsa_cache_lens_ptr,
    table_ptr,
    expanded_ptr,
    context_stride,
    table_stride,
    expanded_stride,
    row_count,
    n,
    drafts_to_come,
    index_topk,
    length_programs,
    pages,
    ROWS: tl.constexpr,
    PAGES: tl.constexpr,
    SUMMED: tl.constexpr,
    SELECTS: tl.constexpr,
):
    program = tl.program_id(0)
    sum_programs: tl.constexpr = 2 if SELECTS else 0
    if program < length_programs:
        rows = program * ROWS + tl.arange(0, ROWS)
        is_row = rows < row_count
        requests, drafts = rows // n, rows % n
        last = _in_cache(seq_lens_ptr, requests, is_row, drafts_to_come)
        tl.store(cache_lens_ptr + requests, last, mask=is_row & (drafts == 0))
        at = context_lens_ptr + requests.to(tl.int64) * context_stride + drafts
        seen = tl.maximum(last - (n - 1 - drafts), 0)
        tl.store(at, seen, mask=is_row)
        tl.store(request_of_row_ptr + rows, requests, mask=is_row)
        if SELECTS:
            tl.store(dsa_cache_lens_ptr + rows, tl.minimum(seen, index_topk), mask=is_row)
    elif program < length_programs + sum_programs:
        if program == length_programs:
            _sum_up(cu_cache_lens_ptr, seq_lens_ptr, row_count // n, 1, drafts_to_come, LONGEST, SUMMED)
        else:
            _sum_up(cu_dsa_cache_lens_ptr, seq_lens_ptr, row_count, n, drafts_to_come, index_topk, SUMMED)
    else:
        piece = program - length_programs - sum_programs
        pieces = tl.cdiv(pages, PAGES)
        row = piece // pieces
        columns = piece % pieces * PAGES + tl.arange(0, PAGES)
        is_page = columns < pages
        table = tl.load(table_ptr + (row // n).to(tl.int64) * table_stride + columns, mask=is_page, other=0)
        tl.store(expanded_ptr + row.to(tl.int64) * expanded_stride + columns, table, mask=is_page)


def launch_portable(call: Call, launch: PortableLaunch) -> None:
    """Fill `call.out`, which has at least one row."""
    out, table = call.out, call.page_table
    unused = out.request_of_row
    expanded = unused if out.page_table is None else out.page_table
    selected = (out.dsa_cache_lens, out.cu_cache_lens, out.cu_dsa_cache_lens)
    rows, pages = out.request_of_row.shape[0], 0 if table is None else table.shape[1]
    length_programs = triton.cdiv(rows, launch.rows)
    sum_programs = 0 if call.index_topk is None else 2
    with torch.cuda.device_of(call.seq_lens):
        _expand[(length_programs + sum_programs + rows * triton.cdiv(pages, launch.pages),)](
            call.seq_lens,
            out.cache_lens,
            out.context_lens,
            out.request_of_row,
            *(unused if lens is None else lens for lens in selected),
            call.seq_lens if table is None else table,
            expanded,
            out.context_lens.stride(0),
            0 if table is None else table.stride(0),
            expanded.stride(0),
            rows,
            call.n,
            call.drafts_to_come,
            call.index_topk or 0,
            length_programs,
            pages,
            ROWS=launch.rows,
            PAGES=launch.pages,
            SUMMED=launch.summed,
            SELECTS=call.index_topk is not None,
            num_warps=launch.warps,
        )
