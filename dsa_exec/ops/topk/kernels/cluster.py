"""Top-k of few rows on Hopper: a cluster of up to 16 blocks owns a row and keeps it in registers, read once.

A float becomes an unsigned key in the same order. Radix selection on 12, 12, then 8 bits finds the k-th best key
(`cluster_digits.py`); it ends when all keys with a digit are wanted, which for real numbers is mostly after two. Then
every block knows what the blocks before it pick, and prefix sums give each of its picks its place, in order of columns.
Nothing is decided by who arrives first, and no memory of the device is used but the result's.
"""

from __future__ import annotations

import torch
from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from dsa_exec.core.kernels import slots
from dsa_exec.ops.topk import Call
from dsa_exec.ops.topk.kernels.arguments import row_arguments
from dsa_exec.ops.topk.kernels.cluster_digits import count_digits, find_digit
from dsa_exec.ops.topk.kernels.cluster_memory import (
    AWAIT_CLUSTER,
    AWAIT_KERNEL_BEFORE,
    BEFORE,
    CLEARED_LATER,
    CLEARED_WORDS,
    COARSE,
    COUNTS,
    DECLARE,
    LAST_LANE,
    LEAVE_CLUSTER,
    LOAD,
    PICK,
    PICKED,
    RANK,
    SCAN_WARP,
    STORE,
    SYNC_BLOCK,
    WRITE,
    ptx,
    scan_warps,
)
from dsa_exec.ops.topk.launch import ClusterLaunch

pages_of_row = gluon.jit(slots.pages_of_row.fn)
slots_of = gluon.jit(slots.slots_of.fn)


@gluon.jit
def _clear(THREADS: gl.constexpr):
    """Clear all counters."""
    T: gl.constexpr = 32 * gl.num_warps()
    tid = gl.arange(0, T, layout=THREADS)
    for i in gl.static_range(CLEARED_WORDS // T):
        ptx(STORE, "=r,r,r,r", [COUNTS + (i * T + tid) * 4, tid * 0, tid * 0 + 1])
    for i in gl.static_range((CLEARED_LATER + T - 1) // T):
        at = i * T + tid
        ptx(STORE, "=r,r,r,r", [COARSE + at * 4, tid * 0, (at < CLEARED_LATER).to(gl.int32)])


@gluon.jit
def _scores(base_ptr, columns, width):
    """Scores of some columns of a row of `width`. They count from `base_ptr`, which is aligned if rows are."""
    whole = width // 4 * 4  # four at once; the last of a row one by one
    scores = gl.load(base_ptr + columns, mask=columns < whole, other=0.0)
    if whole < width:
        is_last = (columns >= whole) & (columns < width)
        scores = gl.where(columns < whole, scores, gl.load(base_ptr + columns, mask=is_last, other=0.0))
    return scores


@gluon.jit
def _keys(scores, columns, low, high):
    """Keys in the order of scores; 0, below every score's, outside [low, high)."""
    scores = gl.maximum(scores, float("-inf")) + 0.0  # NaN becomes -inf, -0.0 becomes 0.0
    bits = scores.to(gl.int32, bitcast=True)
    keys = (bits ^ ((bits >> 31) | -2147483648)).to(gl.uint32, bitcast=True)
    return gl.where((columns >= low) & (columns < high), keys, 0)


@gluon.jit
def _kth_key(keys, k, rank, BLOCKS: gl.constexpr, THREADS: gl.constexpr):
    """The k-th best key of the cluster, or the least with its digits if all of these are wanted.

    Returns:
        Which digit was the last, 0, 1 or 2; the key; whether all keys are wanted that begin with its digits; else how
        many of those equal to it are.
    """
    step = k * 0
    prefix = k * 0
    wanted = k
    lowest = (k * 0 + 1).to(gl.uint32)
    span = (k * 0 - 2).to(gl.uint32)
    rest = k * 0 + 20  # bits below the digit
    last = k * 0
    kth = k * 0
    all_wanted = k * 0
    while step < 3:
        mask = gl.where(step == 2, 0xFF, 0xFFF)
        count_digits(keys, lowest, span, rest, mask, step)
        digit, above, found = find_digit(wanted, step, rank, BLOCKS, THREADS)
        wanted -= above
        prefix = gl.where(step == 2, prefix << 8, prefix << 12) | digit
        kth = prefix << rest
        all_wanted = (wanted == found).to(gl.int32)
        lowest = kth.to(gl.uint32)
        span = ((k * 0 + 1) << rest).to(gl.uint32) - 1
        last = step
        rest = gl.where(step == 0, 8, 0)
        step = gl.where(all_wanted == 1, 3, step + 1)
    return last, kth.to(gl.uint32), all_wanted, wanted


@gluon.jit
def _places(flags, ROUNDS: gl.constexpr, THREADS: gl.constexpr):
    """Prefix sum, exclusive, of a flag a column, and the sum, over the block. Two numbers of 16 bits may go in one.

    Warp w has columns w * (E / warps) on, four a lane in rounds of 128. Holds a barrier of the block.
    """
    W: gl.constexpr = gl.num_warps()
    COLUMNS: gl.constexpr = 128 * W * ROUNDS
    flags4 = gl.reshape(flags, [W, ROUNDS, 32, 4])
    of_lane = gl.sum(flags4, axis=3)
    until_lane = ptx(SCAN_WARP, "=&r,r", [of_lane])
    of_round = ptx(LAST_LANE, "=r,r", [until_lane])
    of_warp = gl.sum(of_round, axis=1)
    until_warp, total = scan_warps(of_warp, W)
    before = until_lane - of_lane + (until_warp - of_warp)[:, None, :]
    rounds = gl.arange(0, ROUNDS, layout=gl.SliceLayout(0, gl.SliceLayout(2, of_round.type.layout)))[None, :, None]
    for i in gl.static_range(ROUNDS - 1):  # register numbers are constants: only the additions are left
        before += gl.where(rounds > i, gl.sum(gl.where(rounds == i, of_round, 0), axis=1)[:, None, :], 0)
    before = before[:, :, :, None] + flags4 * 0
    quad: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(2, flags4.type.layout)))
    fourth = gl.arange(0, 4, layout=quad)[None, None, None, :]
    for i in gl.static_range(3):
        before += gl.where(fourth > i, gl.sum(gl.where(fourth == i, flags4, 0), axis=3)[:, :, :, None], 0)
    before = gl.convert_layout(gl.reshape(before, [COLUMNS]), flags.type.layout)
    return before, gl.convert_layout(gl.reshape(total, [32 * W]), THREADS)


@gluon.jit(do_not_specialize=["width", "k", "requests", "pages", "page_tokens", "slot_count", "rows_per_request"])
def _select_row(
    logits_ptr,
    lengths_ptr,
    starts_ptr,
    picked_ptr,
    table_ptr,
    request_of_row_ptr,
    row_stride,
    table_stride,
    width,
    k,
    requests,
    pages,
    page_tokens,
    slot_count,
    rows_per_request,
    WINDOWS: gl.constexpr,
    TO_SLOTS: gl.constexpr,
    LISTED: gl.constexpr,
    OVERLAP: gl.constexpr,
    COLUMNS: gl.constexpr,
    BLOCKS: gl.constexpr,
    CELLS: gl.constexpr,
    THREADS: gl.constexpr,
):
    T: gl.constexpr = 32 * gl.num_warps()
    row = gl.program_id(0)
    rank = row * 0
    if BLOCKS > 1:
        rank = ptx(RANK, "=r", [])
    tid = gl.arange(0, T, layout=THREADS)
    ptx(DECLARE, "=r", [])
    _clear(THREADS)
    if OVERLAP:
        ptx(AWAIT_KERNEL_BEFORE, "=r", [])
    picked_ptr += row.to(gl.int64) * k
    start = row * 0
    if WINDOWS:
        start = gl.load(starts_ptr + row)
    # In int64: a hostile length or start must not overflow.
    first = gl.minimum(gl.maximum(start, 0), width)
    base = first // 4 * 4
    columns = rank * COLUMNS + gl.arange(0, COLUMNS, layout=CELLS)
    # Before the length is known: most rows need their scores, and this saves one trip to memory.
    scores = _scores(logits_ptr + row.to(gl.int64) * row_stride + base, columns, width - base)
    end = gl.load(lengths_ptr + row).to(gl.int64) + start
    end = gl.maximum(gl.minimum(end, width), first).to(gl.int32)
    if TO_SLOTS:
        if LISTED:
            request = gl.load(request_of_row_ptr + row).to(gl.int64)
        else:
            request = (row // rows_per_request).to(gl.int64)
        pages = pages_of_row(request, requests, pages)
        table_ptr += request * table_stride

    if end - first <= k:
        for i in range(rank * T, k, BLOCKS * T):
            nth = i + tid
            places = gl.where(nth < end - first, nth + (first - start), -1)
            if TO_SLOTS:
                places = slots_of(places, table_ptr, pages, page_tokens, slot_count)
            ptx(WRITE, "=r,l,r,r,r", [picked_ptr, nth, places, (nth < k).to(gl.int32)])
    else:
        keys = _keys(scores, columns, first - base, end - base)
        ptx(SYNC_BLOCK, "=r", [])
        last, kth, all_wanted, wanted = _kth_key(keys, k, rank, BLOCKS, THREADS)
        if BLOCKS > 1:
            ptx(LEAVE_CLUSTER, "=r", [])
        flags = gl.where(keys > kth - all_wanted.to(gl.uint32), 1, gl.where(keys == kth, 65536, 0))
        before, total = _places(flags, COLUMNS // (4 * T), THREADS)
        above_before = ptx(LOAD, "=r,r", [row * 0 + BEFORE])
        equal_before = ptx(LOAD, "=r,r", [(BEFORE + 4) + last * 4])
        wanted_here = gl.maximum(wanted - equal_before, 0)
        ptx(PICK, "=r,r,r,r,r", [flags, before, flags * 0 + wanted_here, columns + (base - start)])
        ptx(SYNC_BLOCK, "=r", [])
        picks = (total & 0xFFFF) + gl.minimum(total >> 16, wanted_here)
        place = above_before + gl.minimum(equal_before, wanted)
        for i in range(0, gl.minimum(k, COLUMNS), T):
            nth = i + tid
            if TO_SLOTS:
                places = ptx(LOAD, "=r,r", [PICKED + gl.minimum(nth, 4095) * 4])
                places = slots_of(gl.where(nth < picks, places, -1), table_ptr, pages, page_tokens, slot_count)
            else:
                places = ptx(LOAD, "=r,r", [PICKED + gl.minimum(nth, 4095) * 4])
            ptx(WRITE, "=r,l,r,r,r", [picked_ptr, place + nth, places, (nth < picks).to(gl.int32)])
        if BLOCKS > 1:
            ptx(AWAIT_CLUSTER, "=r", [])  # others may still read this block's counters


def _layouts(launch: ClusterLaunch) -> tuple[gl.constexpr, gl.constexpr]:
    """Layouts of [columns of a block] and of [one element a thread]; to the compiler, all blocks hold the same."""
    cluster = [[0]] * (launch.blocks.bit_length() - 1)
    of_warp = launch.columns // launch.warps

    def bits(low: int, high: int) -> list[list[int]]:
        return [[1 << bit] for bit in range(low.bit_length() - 1, high.bit_length() - 1)]

    registers = bits(1, 4) + bits(128, of_warp)
    cells = gl.DistributedLinearLayout(
        registers, bits(4, 128), bits(of_warp, launch.columns), cluster, [launch.columns]
    )
    return cells, gl.BlockedLayout([1], [32], [launch.warps], [0], cga_layout=cluster)


def launch_cluster(call: Call, picked: torch.Tensor, launch: ClusterLaunch) -> None:
    """Fill `picked`, int32 [t, k], with what the call wants; one cluster a row."""
    by_place, used = row_arguments(call, picked)
    cells, threads = _layouts(launch)
    with torch.cuda.device_of(call.logits):
        _select_row[(call.logits.shape[0],)](
            *by_place,
            **used,
            OVERLAP=bool(launch.overlap),
            COLUMNS=launch.columns,
            BLOCKS=launch.blocks,
            CELLS=cells,
            THREADS=threads,
            num_warps=launch.warps,
            num_ctas=launch.blocks,
            maxnreg=launch.registers or None,
            launch_pdl=bool(launch.overlap),
        )
