"""Exact top-k of many rows: one block a row, which reads it once in most cases.

A float becomes an unsigned key in the same order. A sample of the row gives a threshold that somewhat more than k of
its cells reach; one pass at the speed of memory gathers those, and the k-th best of them is found digit by digit in
shared memory. A bitmap of the columns that were chosen puts them in order.

All of it is exact. Where the sample's threshold is reached by fewer than k cells, or by more than there is room for,
the digits are counted over the whole row, which gives a threshold that is certain to do, and the row is read again.
Where too many cells are equal to any threshold, only those above it are candidates, and the first of the equal ones are
taken from the row in order. Atomics decide where candidates lie in the buffer, but not which are chosen.
"""

from __future__ import annotations

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from dsa_exec.ops.topk import Call
from dsa_exec.ops.topk.kernels import many_rows_ptx as ptx
from dsa_exec.ops.topk.kernels.many_rows_digits import BINS, CELLS_BYTES, asm, load_if, store_if, sync
from dsa_exec.ops.topk.kernels.many_rows_picks import pick_from_memory, pick_in_registers
from dsa_exec.ops.topk.many_rows_launch import ManyRowsLaunch

_BASE = gl.constexpr(ptx.BASE)
_AWAIT_KERNEL_BEFORE = gl.constexpr(ptx.AWAIT_KERNEL_BEFORE)
_PREFETCH_IF = gl.constexpr(ptx.PREFETCH_IF)


@gluon.jit
def _bring_closer(address, bytes, tid):
    """Send for what lies there, from memory into the second-level cache, in whole units of 16 bytes."""
    first = address.to(gl.int64) >> 4 << 4
    rounded = ((address.to(gl.int64) + bytes + 15 - first) >> 4 << 4).to(gl.int32)
    asm(_PREFETCH_IF, "=r,l,r,r", [first, rounded, ((tid == 0) & (rounded > 0)).to(gl.int32)])


@gluon.jit(
    do_not_specialize=[
        "row_stride", "width", "k", "rows_ahead", "requests", "table_stride", "pages", "page_tokens", "slot_count",
        "rows_per_request",
    ]
)  # fmt: skip
def _many_rows_kernel(
    logits_ptr,
    lengths_ptr,
    starts_ptr,
    picked_ptr,
    table_ptr,
    request_ptr,
    row_stride,
    width,
    k,
    rows_ahead,
    requests,
    table_stride,
    pages,
    page_tokens,
    slot_count,
    rows_per_request,
    CAPACITY: gl.constexpr,
    SAMPLE: gl.constexpr,
    VECTORS: gl.constexpr,
    CELLS: gl.constexpr,
    ONLY_CELLS: gl.constexpr,
    AHEAD_BYTES: gl.constexpr,
    HAS_STARTS: gl.constexpr,
    TO_SLOTS: gl.constexpr,
    LISTED: gl.constexpr,
    OVERLAP: gl.constexpr,
):
    THREADS: gl.constexpr = 32 * gl.num_warps()
    TL: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    UNIT: gl.constexpr = CELLS_BYTES // 4
    # The scores of candidates (later what is put in order), their columns, the counts, the cells; then one unit whose
    # only use is that the compiler sees the memory in use.
    UNITS: gl.constexpr = (2 * CAPACITY + BINS) // UNIT + 2
    memory = gl.allocate_shared_memory(gl.int32, [UNITS, UNIT], gl.SwizzledSharedLayout(1, 1, 1, [0]))
    memory.index(UNITS - 1).store(gl.full([UNIT], 0, gl.int32, TL))
    base = asm(_BASE, "=r", [])
    bins = base + CAPACITY * 8
    cells = bins + BINS * 4
    tid = gl.arange(0, THREADS, layout=TL)
    for i in gl.static_range(BINS // THREADS):
        store_if(bins + (i * THREADS + tid) * 4, tid * 0, tid >= 0)
    store_if(cells + tid * 4, tid * 0, tid < UNIT)

    row = gl.program_id(0)
    if OVERLAP:
        # Whatever the kernel before writes, the second-level cache has it; what it only reads may have left the cache.
        _bring_closer(lengths_ptr + row, 4, tid)
        if TO_SLOTS and not LISTED:
            _bring_closer(table_ptr + (row // rows_per_request).to(gl.int64) * table_stride, pages * 4, tid)
        asm(_AWAIT_KERNEL_BEFORE, "=r", [])
    start = row * 0
    if HAS_STARTS:
        start = gl.load(starts_ptr + row)
    first = gl.maximum(start, 0)
    end = gl.minimum(start.to(gl.int64) + gl.load(lengths_ptr + row), width)
    n = gl.maximum(end - first, 0).to(gl.int32)
    cell = logits_ptr + (row.to(gl.int64) * row_stride + first)
    if n <= k:
        for block in range(0, n, THREADS):
            store_if(base + (block + tid) * 4, block + tid, block + tid < n)
        sync()
    else:
        sync()
        if n <= CELLS:
            pick_in_registers(cell, n, k, base, bins, cells, tid, CELLS)
        elif not ONLY_CELLS:
            ahead = row.to(gl.int64) * 0
            if row + rows_ahead < gl.num_programs(0):
                ahead = rows_ahead.to(gl.int64) * row_stride
            pick_from_memory(cell, n, k, base, bins, cells, tid, ahead, CAPACITY, SAMPLE, VECTORS, AHEAD_BYTES)

    for block in range(0, k, THREADS):
        at = block + tid
        place = load_if(base + at * 4, at < n) + (first - start)
        is_in = at < n
        if TO_SLOTS:
            if LISTED:
                request = gl.load(request_ptr + row).to(gl.int64)
            else:
                request = (row // rows_per_request).to(gl.int64)
            page = place // gl.minimum(page_tokens, 0x7FFFFFFF).to(gl.int32)
            is_in = is_in & (place >= 0) & (page < pages) & (request >= 0) & (request < requests)
            number = gl.load(table_ptr + (request * table_stride + page), mask=is_in, other=-1).to(gl.int64)
            slot = number * page_tokens + (place - page.to(gl.int64) * page_tokens)
            is_in = is_in & (slot >= 0) & (slot < slot_count)
            place = slot.to(gl.int32)
        gl.store(picked_ptr + (row.to(gl.int64) * k + at), gl.where(is_in, place, -1), mask=at < k)
    memory._keep_alive()


def launch_many_rows(call: Call, out: torch.Tensor, launch: ManyRowsLaunch) -> None:
    """Write the positions of the k largest logits of each row, or their slots.

    Args:
        call: the arguments of `topk`, on a Hopper GPU. Without rows nothing is launched.
        out: int32 [t, k], contiguous.
        launch: the launch parameters.
    """
    rows, width = call.logits.shape
    only_cells = width <= launch.cells
    capacity = launch.capacity
    if only_cells:  # of the candidates' place only what is put in order is needed
        capacity = 1024 if call.k <= 2048 else 2048
    if rows == 0 or call.k == 0:
        return
    slots = call.slot_map
    of_row = None if slots is None else slots.request_of_row
    with torch.cuda.device(call.logits.device):
        _many_rows_kernel[(rows,)](
            call.logits,
            call.lengths,
            call.lengths if call.row_starts is None else call.row_starts,
            out,
            out if slots is None else slots.page_table,
            out if of_row is None else of_row,
            call.logits.stride(0),
            width,
            call.k,
            launch.rows_ahead,
            0 if slots is None else slots.page_table.shape[0],
            0 if slots is None else slots.page_table.stride(0),
            0 if slots is None else slots.page_table.shape[1],
            1 if slots is None else slots.page_tokens,
            0 if slots is None else slots.slot_count,
            1 if slots is None else slots.rows_per_request,
            CAPACITY=capacity,
            SAMPLE=launch.sample,
            VECTORS=launch.vectors,
            CELLS=launch.cells,
            ONLY_CELLS=only_cells,
            AHEAD_BYTES=launch.ahead_bytes,
            HAS_STARTS=call.row_starts is not None,
            TO_SLOTS=slots is not None,
            LISTED=of_row is not None,
            OVERLAP=bool(launch.overlap),
            num_warps=launch.warps,
            maxnreg=launch.registers or None,
            launch_pdl=bool(launch.overlap),
        )
