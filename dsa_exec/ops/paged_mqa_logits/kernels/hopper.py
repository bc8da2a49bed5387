"""Indexer scores of plain e4m3 pages of 64 tokens on Hopper's matrix units.

The pages that all requests see, one after the other, are dealt out evenly: each program has a run of them, which may
begin in one request and end in another. Programs work out their runs from the lengths themselves, so that nothing has
to be planned ahead, and long tables and short requests cost nothing.

Seen as 66 rows of 128 bytes, a page is 64 rows of keys and 2 rows of scales. The copy engine brings both into a ring,
pages ahead. Keys are the rows of a matrix product and the heads of one query row its columns, so that the sum over
heads stays within a row; the rows of a request take their products from the same keys, two of them in turn: while
the matrix units work on one, the warps bring the other through relu, weights and the sum.
A product must begin and end within one step: one that crosses the loop's back edge is waited for at every instruction.
"""

from __future__ import annotations

import triton.language as tl
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

# Newer Tritons renamed both.
copy_to_shared = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
_buffer = gl.shared_memory_descriptor
read_as = _buffer.reinterpret if hasattr(_buffer, "reinterpret") else _buffer._reinterpret

PAGE = gl.constexpr(64)
CHANNELS = gl.constexpr(128)
PAGE_LINES = gl.constexpr(66)  # of 128 bytes
PAGE_BYTES = gl.constexpr(8448)
SPAN = gl.constexpr(2048)  # columns that are filled with -inf at a time
AWAIT_KERNEL_BEFORE = gl.constexpr("griddepcontrol.wait; mov.u32 $0, 0;")
LET_NEXT_KERNEL_START = gl.constexpr("griddepcontrol.launch_dependents; mov.u32 $0, 0;")
NAN_STAYS = gl.constexpr(tl.PropagateNan.ALL)
WARPS = 4


@gluon.jit
def _pages_of_units(
    context_lens, lens_stride, requests, width, NEXT_N: gl.constexpr, ROWS: gl.constexpr, UNITS: gl.constexpr
):
    """The pages that the longest row of each unit sees: int32 [UNITS]."""
    LINE: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    GROUPS: gl.constexpr = (NEXT_N + ROWS - 1) // ROWS
    unit = gl.arange(0, UNITS, layout=LINE)
    request = unit // GROUPS
    longest = gl.zeros([UNITS], gl.int32, LINE)
    for row in gl.static_range(ROWS):
        step = unit % GROUPS * ROWS + row
        place = context_lens + request.to(gl.int64) * lens_stride + step
        seen = gl.load(place, mask=(request < requests) & (step < NEXT_N), other=0)
        longest = gl.maximum(longest, gl.minimum(seen, width))
    return gl.cdiv(longest, PAGE)


@gluon.jit
def _add(left, right):
    return left + right


@gluon.jit
def _say(code: gl.constexpr):
    """Run a line of PTX that takes and gives nothing."""
    gl.inline_asm_elementwise(code, "=r", [], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def _fetch(page_lines, scale_lines, page, cache_pages, full, keys, scales, wanted):
    """Send for a page and its scales. A page that the cache does not have is past its end, and comes as zeros."""
    line = gl.where((page >= 0) & (page < cache_pages), page, cache_pages) * PAGE_LINES
    mbarrier.expect(full, PAGE_BYTES, pred=wanted)
    copy_to_shared(page_lines, [line, 0], full, keys, pred=wanted)
    copy_to_shared(scale_lines, [line + PAGE, 0], full, scales, pred=wanted)


@gluon.jit
def _hide(out, out_stride, context_lens, lens_stride, rows, width, NEXT_N: gl.constexpr):
    """-inf into the pages that a row sees nothing of, dealt out to all programs."""
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    spans = gl.cdiv(width, SPAN)
    nothing = gl.full([SPAN], float("-inf"), gl.float32, LAYOUT)
    for span in range(gl.program_id(0), rows * spans, gl.num_programs(0)):
        row = span // spans
        first = span % spans * SPAN
        seen = gl.load(context_lens + (row // NEXT_N).to(gl.int64) * lens_stride + row % NEXT_N)
        begin = gl.cdiv(gl.maximum(gl.minimum(seen, width), 0), PAGE) * PAGE
        if begin < gl.minimum(first + SPAN, width):
            column = first + gl.arange(0, SPAN, layout=LAYOUT)
            gl.store(out + row.to(gl.int64) * out_stride + column, nothing, mask=(column >= begin) & (column < width))


@gluon.jit(
    do_not_specialize=["requests", "width", "table_width", "cache_pages", "least", "lens_stride", "table_stride"]
)
def logits_kernel(
    page_lines,
    scale_lines,
    q,
    head_weights,
    context_lens,
    page_table,
    out,
    requests,
    width,
    table_width,
    cache_pages,
    least,
    q_request_stride,
    q_row_stride,
    q_head_stride,
    weight_stride,
    lens_stride,
    table_stride,
    out_stride,
    HEADS: gl.constexpr,
    NEXT_N: gl.constexpr,
    ROWS: gl.constexpr,
    UNITS: gl.constexpr,
    STAGES: gl.constexpr,
    CLEAN: gl.constexpr,
    OVERLAP: gl.constexpr,
    KEPT: gl.constexpr,
):
    """Logits of the pages that fall to this program, for all rows that see them."""
    GROUPS: gl.constexpr = (NEXT_N + ROWS - 1) // ROWS
    PRODUCT: gl.constexpr = gl.NVMMADistributedLayout(
        version=[3, 0], warps_per_cta=[gl.num_warps(), 1], instr_shape=[16, HEADS, 32]
    )
    KEY: gl.constexpr = gl.SliceLayout(1, PRODUCT)
    LOADED: gl.constexpr = gl.BlockedLayout([1, 16], [4, 8], [gl.num_warps(), 1], [1, 0])
    LISTED_PAGES: gl.constexpr = 4 if STAGES <= 4 else 8 if STAGES <= 8 else 16
    AHEAD: gl.constexpr = gl.BlockedLayout([LISTED_PAGES], [32], [gl.num_warps()], [0])
    F32: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    EVICTION: gl.constexpr = "evict_last" if KEPT else ""

    if OVERLAP:
        _say(AWAIT_KERNEL_BEFORE)
    # Whatever waits reads nothing before this kernel has ended, and takes room only beside programs that all run.
    _say(LET_NEXT_KERNEL_START)
    pages = _pages_of_units(context_lens, lens_stride, requests, width, NEXT_N, ROWS, UNITS)
    ends = gl.associative_scan(pages, 0, _add)
    total = gl.sum(pages, axis=0)
    programs = gl.minimum(gl.num_programs(0), gl.cdiv(total, least))
    program = gl.program_id(0)
    if program < programs:
        keys = gl.allocate_shared_memory(gl.uint8, [STAGES, PAGE, CHANNELS], page_lines.layout)
        scales = gl.allocate_shared_memory(gl.uint8, [STAGES, 2, CHANNELS], scale_lines.layout)
        queries = gl.allocate_shared_memory(gl.float8e4nv, [ROWS, HEADS, CHANNELS], page_lines.layout)
        full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
        for slot in gl.static_range(STAGES):
            mbarrier.init(full.index(slot), count=1)
        fence_async_shared()
        share = total // programs
        longer = total % programs  # so many programs have a page more
        position = program * share + gl.minimum(program, longer)
        end = position + share + gl.where(program < longer, 1, 0)
        zero = gl.zeros([PAGE, HEADS], gl.float32, PRODUCT)
        ahead = gl.arange(0, LISTED_PAGES, layout=AHEAD)
        key = gl.arange(0, PAGE, layout=KEY)
        used = position * 0
        while position < end:
            # The part of the run within one unit: `steps` pages from its page `first` on.
            chosen = gl.sum((ends <= position).to(gl.int32), axis=0)
            first = position - gl.max(gl.where(ends <= position, ends, 0), axis=0)
            steps = gl.minimum(gl.min(gl.where(ends <= position, 0x7FFFFFFF, ends), axis=0), end) - position
            request = (chosen // GROUPS).to(gl.int64)
            first_row = chosen % GROUPS * ROWS
            table = page_table + request * table_stride + first
            in_table = gl.minimum(table_width - first, steps)
            next_pages = gl.load(table + ahead, mask=ahead < in_table, other=-1)
            # Tuples grow by addition: Triton's compiler knows no unpacking.
            weights = ()
            limits = ()
            outs = ()
            loads = ()
            head = gl.arange(0, HEADS, layout=gl.SliceLayout(1, LOADED))
            channel = gl.arange(0, CHANNELS, layout=gl.SliceLayout(0, LOADED))
            column = gl.arange(0, HEADS, layout=gl.SliceLayout(0, PRODUCT))
            for of_unit in gl.static_range(ROWS):
                row = gl.minimum(first_row + of_unit, NEXT_N - 1)
                place = q + request * q_request_stride + row.to(gl.int64) * q_row_stride
                loads = loads + (gl.load(place + (head * q_head_stride)[:, None] + channel[None, :]),)
                number = request * NEXT_N + row
                weights = weights + (gl.load(head_weights + number * weight_stride + column),)
                seen = gl.load(context_lens + request * lens_stride + row)
                seen = gl.where(first_row + of_unit < NEXT_N, gl.maximum(gl.minimum(seen, width), 0), 0)
                limits = limits + (seen - first * PAGE,)
                outs = outs + (out + number * out_stride + first * PAGE,)
            for early in gl.static_range(STAGES):
                page = gl.sum(gl.where(ahead == early, next_pages, 0), axis=0)
                stage = (used + early) % STAGES
                _fetch(
                    page_lines, scale_lines, page, cache_pages,
                    full.index(stage), keys.index(stage), scales.index(stage), early < steps,
                )  # fmt: skip
            for of_unit in gl.static_range(ROWS):
                queries.index(of_unit).store(loads[of_unit])
            fence_async_shared()
            page = gl.load(table + STAGES, mask=in_table > STAGES, other=-1)
            for step in range(steps):
                stage = used % STAGES
                here = gl.load(table + step, mask=step < in_table, other=-1)
                known = (here >= 0) & (here < cache_pages)
                mbarrier.wait(full.index(stage), (used // STAGES) & 1)
                used += 1
                tile = read_as(keys.index(stage), gl.float8e4nv, [PAGE, CHANNELS], page_lines.layout)
                product = warpgroup_mma(tile, queries.index(0).permute((1, 0)), zero, use_acc=False, is_async=True)
                scale = read_as(scales.index(stage), gl.float32, [PAGE], F32).load(KEY)
                offset = step * PAGE + key
                for of_unit in gl.static_range(ROWS):
                    if of_unit + 1 < ROWS:
                        following = warpgroup_mma(
                            tile, queries.index(of_unit + 1).permute((1, 0)), zero, use_acc=False, is_async=True
                        )
                        done = warpgroup_mma_wait(1, deps=[product])
                        product = following
                    else:
                        done = warpgroup_mma_wait(0, deps=[product])
                        # The stage just read is free for the page that is STAGES ahead.
                        _fetch(
                            page_lines, scale_lines, page, cache_pages,
                            full.index(stage), keys.index(stage), scales.index(stage), step + STAGES < steps,
                        )  # fmt: skip
                        following_step = step + STAGES + 1
                        page = gl.load(table + following_step, mask=following_step < in_table, other=-1)
                    parts = gl.maximum(done, 0.0, propagate_nan=NAN_STAYS) * weights[of_unit][None, :]
                    score = gl.fma(gl.sum(parts, axis=1), scale, gl.zeros([PAGE], gl.float32, KEY))
                    limit = limits[of_unit]
                    if CLEAN:
                        score = gl.where(known & (offset < limit), score, float("-inf"))
                        # to the end of the row's last page; `_hide` begins there
                        limit = gl.minimum(gl.cdiv(limit, PAGE) * PAGE, width - first * PAGE)
                    else:
                        score = gl.where(known, score, float("-inf"))
                    gl.store(outs[of_unit] + offset, score, mask=offset < limit, eviction_policy=EVICTION)
            position += steps
    if CLEAN:
        _hide(out, out_stride, context_lens, lens_stride, requests * NEXT_N, width, NEXT_N)
