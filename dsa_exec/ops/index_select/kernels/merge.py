"""Join the candidates that programs found in spans of a row's keys, in plain Triton: one program a row."""

from __future__ import annotations

import triton
import triton.language as tl

from dsa_exec.core.kernels.slots import pages_of_row
from dsa_exec.ops.index_select.kernels.candidates import keep_best, offer_candidates, write_picks
from dsa_exec.ops.index_select.kernels.gathered import window


@triton.jit
def _merged(candidates, counts, group, in_group, groups, spans, k, ROWS, CAPACITY: tl.constexpr, BLOCK: tl.constexpr):
    """Bring a row's k best to where those of its first span are. They rise by span as they do within one."""
    ours = candidates + (group.to(tl.int64) * ROWS + in_group) * CAPACITY
    count = tl.load(counts + group * ROWS + in_group)
    threshold = tl.zeros((), tl.uint32)
    for span in tl.range(1, spans):
        place = (span * groups + group) * ROWS + in_group
        found = tl.load(counts + place)
        theirs = candidates + place.to(tl.int64) * CAPACITY
        for at in tl.range(0, found, BLOCK):
            nth = at + tl.arange(0, BLOCK)
            others = tl.load(theirs + nth, mask=nth < found, other=0)
            count = offer_candidates(ours, count, threshold, others)
            if count > CAPACITY - BLOCK:
                tl.debug_barrier()  # what other threads have appended is there
                threshold = keep_best(ours, count, k, CAPACITY)
                count = tl.minimum(count, k)
                tl.debug_barrier()
    tl.debug_barrier()
    if count > k:
        keep_best(ours, count, k, CAPACITY)
        tl.debug_barrier()
    return ours


@triton.jit(do_not_specialize=["t", "s", "k", "groups", "spans"])
def merge_gathered(
    candidates,
    counts,
    starts,
    ends,
    picked,
    t,
    s,
    k,
    groups,
    spans,
    ROWS: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write what a row selects of gathered keys."""
    row = tl.program_id(0)
    low, _, length, start = window(starts, ends, row, t, s)
    group = groups - 1 - row // ROWS
    ours = candidates
    if length > k:
        ours = _merged(candidates, counts, group, row % ROWS, groups, spans, k, ROWS, CAPACITY, BLOCK)
    write_picks(ours, picked + row.to(tl.int64) * k, low, length, start, k, picked, 0, 1, 0, False, BLOCK)


@triton.jit(do_not_specialize=["next_n", "k", "groups", "spans", "width", "requests", "table_width", "page_tokens"])
def merge_paged(
    candidates,
    counts,
    context_lens,
    page_table,
    picked,
    next_n,
    width,
    k,
    groups,
    spans,
    requests,
    table_width,
    page_tokens,
    slot_count,
    lens_stride,
    table_stride,
    ROWS: tl.constexpr,
    CAPACITY: tl.constexpr,
    BLOCK: tl.constexpr,
    TO_SLOTS: tl.constexpr,
):
    """Write what a row selects of a cache's keys."""
    request = tl.program_id(0) // next_n
    row = tl.program_id(0) % next_n
    length = tl.load(context_lens + request.to(tl.int64) * lens_stride + row)
    length = tl.maximum(tl.minimum(length, width), 0)
    parts = tl.cdiv(next_n, ROWS)
    group = request * parts + row // ROWS
    ours = candidates
    if length > k:
        ours = _merged(candidates, counts, group, row % ROWS, groups, spans, k, ROWS, CAPACITY, BLOCK)
    write_picks(
        ours, picked + tl.program_id(0).to(tl.int64) * k, 0, length, 0, k,
        page_table + request.to(tl.int64) * table_stride, pages_of_row(request, requests, table_width), page_tokens,
        slot_count, TO_SLOTS, BLOCK,
    )  # fmt: skip
