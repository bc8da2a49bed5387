"""All metadata of a step with one launch: the first programs take lengths, the others a piece of a row's pages each."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.ops.step_metadata import INT32_MAX, Call
from dsa_exec.ops.step_metadata.launch import PortableLaunch


@triton.jit(do_not_specialize=["row_count", "n", "drafts_to_come", "longest", "length_programs"])
def _expand(
    seq_lens_ptr,
    cache_lens_ptr,
    context_lens_ptr,
    request_of_row_ptr,
    table_ptr,
    expanded_ptr,
    context_stride,
    table_stride,
    expanded_stride,
    row_count,
    n,
    drafts_to_come,
    longest,
    length_programs,
    pages,
    ROWS: tl.constexpr,
    PAGES: tl.constexpr,
):
    program = tl.program_id(0)
    if program < length_programs:
        rows = program * ROWS + tl.arange(0, ROWS)
        is_row = rows < row_count
        requests, drafts = rows // n, rows % n
        lens = tl.load(seq_lens_ptr + requests, mask=is_row, other=0).to(tl.int64)
        last = (tl.minimum(tl.maximum(lens, 0), longest) + drafts_to_come).to(tl.int32)
        tl.store(cache_lens_ptr + requests, last, mask=is_row & (drafts == 0))
        at = context_lens_ptr + requests.to(tl.int64) * context_stride + drafts
        tl.store(at, tl.maximum(last - (n - 1 - drafts), 0), mask=is_row)
        tl.store(request_of_row_ptr + rows, requests, mask=is_row)
    else:
        pieces = tl.cdiv(pages, PAGES)
        row = (program - length_programs) // pieces
        columns = (program - length_programs) % pieces * PAGES + tl.arange(0, PAGES)
        is_page = columns < pages
        table = tl.load(table_ptr + (row // n).to(tl.int64) * table_stride + columns, mask=is_page, other=0)
        tl.store(expanded_ptr + row.to(tl.int64) * expanded_stride + columns, table, mask=is_page)


def launch_portable(call: Call, launch: PortableLaunch) -> None:
    """Fill `call.out`, which has at least one row."""
    out, table = call.out, call.page_table
    expanded = out.request_of_row if out.page_table is None else out.page_table
    rows, pages = out.request_of_row.shape[0], 0 if table is None else table.shape[1]
    length_programs = triton.cdiv(rows, launch.rows)
    with torch.cuda.device_of(call.seq_lens):
        _expand[(length_programs + rows * triton.cdiv(pages, launch.pages),)](
            call.seq_lens,
            out.cache_lens,
            out.context_lens,
            out.request_of_row,
            call.seq_lens if table is None else table,
            expanded,
            out.context_lens.stride(0),
            0 if table is None else table.stride(0),
            expanded.stride(0),
            rows,
            call.n,
            call.drafts_to_come,
            INT32_MAX - call.drafts_to_come,
            length_programs,
            pages,
            ROWS=launch.rows,
            PAGES=launch.pages,
            num_warps=launch.warps,
        )
