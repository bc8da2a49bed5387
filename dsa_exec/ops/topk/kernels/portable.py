"""Top-k by radix selection in plain Triton: one program a row.

A float becomes an unsigned key in the same order, so that the k-th largest can be found digit by digit, each
counted over the whole row. A last pass takes the keys above the k-th, and of those equal to it the first
ones; prefix sums put them in order of their columns. Nothing depends on who arrives first.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.order import ordered_keys
from dsa_exec.core.kernels.slots import pages_of_row, slots_of
from dsa_exec.ops.topk import Call
from dsa_exec.ops.topk.kernels.arguments import row_arguments
from dsa_exec.ops.topk.launch import PortableLaunch

LAST_BITS = tl.constexpr(8)
"""The last digit has all the bits that are left once they are no more than this."""


@triton.jit
def _keys(row_ptr, columns, first, end, width):
    """Keys of some columns, in the order of their scores; 0, below every score's, outside [first, end)."""
    # Only what lies outside the row is masked in the load, so that it needs no more than the row's alignment.
    scores = tl.load(row_ptr + columns, mask=columns < width, other=0.0)
    return tl.where((columns >= first) & (columns < end), ordered_keys(scores), 0)


@triton.jit
def _next_digit(row_ptr, first, end, width, state, REST: tl.constexpr, MOST_BITS: tl.constexpr, BLOCK: tl.constexpr):
    """`prefix` with one more digit of the k-th best key, if that is needed.

    Args:
        row_ptr, first, end, width: the row.
        state: `prefix`, the digits known; `rest`, how many bits of a key it lacks; `wanted`, how many of the keys that
            begin with it are among the k best; `found`, how many there are. If all are wanted, nothing changes.
        REST: what `rest` is if the digit is needed.
        MOST_BITS: of the digit, if it is not the last.
        BLOCK: columns a step.

    Returns:
        The new state.
    """
    BITS: tl.constexpr = REST if REST <= LAST_BITS or REST < MOST_BITS else MOST_BITS
    prefix, rest, wanted, found = state
    if wanted < found:
        counts = tl.zeros([2**BITS], tl.int32)
        for at in range(first // 16 * 16, end, BLOCK):
            keys = _keys(row_ptr, at + tl.arange(0, BLOCK), first, end, width)
            if REST == 32:
                counted = keys > 0
            else:
                counted = (keys >> REST) == prefix
            digits = (keys >> (REST - BITS)) & (2**BITS - 1)
            counts += tl.histogram(digits.to(tl.int32), 2**BITS, mask=counted)
        # So many have this digit or a higher one: falling, and at least `wanted` up to the digit sought.
        at_least = tl.cumsum(counts, 0, reverse=True)
        best = tl.sum((at_least >= wanted).to(tl.int32)) - 1
        is_best = tl.arange(0, 2**BITS) == best
        found = tl.sum(tl.where(is_best, counts, 0))
        wanted -= tl.sum(tl.where(is_best, at_least, 0)) - found
        prefix = (prefix << BITS) | best.to(tl.uint32)
        rest = tl.full((), REST - BITS, tl.uint32)
    return prefix, rest, wanted, found


@triton.jit(do_not_specialize=["k", "pages", "page_tokens", "slot_count", "requests", "rows_per_request"])
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
    WINDOWS: tl.constexpr,
    TO_SLOTS: tl.constexpr,
    LISTED: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_ptr = logits_ptr + row * row_stride
    picked_ptr += row * k
    start = 0
    if WINDOWS:
        start = tl.load(starts_ptr + row)
    # In int64: a hostile length or start must not overflow.
    first = tl.minimum(tl.maximum(start, 0), width)
    end = tl.load(lengths_ptr + row).to(tl.int64) + start
    end = tl.maximum(tl.minimum(end, width), first).to(tl.int32)
    steps = tl.arange(0, BLOCK)

    if end - first <= k:
        for at in range(0, k, BLOCK):
            nth = at + steps
            tl.store(picked_ptr + nth, tl.where(nth < end - first, nth + (first - start), -1), mask=nth < k)
    else:
        state = (tl.zeros((), tl.uint32), tl.full((), 32, tl.uint32), k, k + 1)
        for digit in tl.static_range((31 - LAST_BITS) // BITS + 2):
            if 32 - digit * BITS > 0:
                state = _next_digit(row_ptr, first, end, width, state, 32 - digit * BITS, BITS, BLOCK)
        prefix, rest, wanted, _ = state
        above = 0
        equal = 0
        at = first // 16 * 16
        while (at < end) & (above + tl.minimum(equal, wanted) < k):
            columns = at + steps
            keys = _keys(row_ptr, columns, first, end, width) >> rest
            is_above = (keys > prefix).to(tl.int32)
            is_equal = (keys == prefix).to(tl.int32)
            both = is_above | (is_equal << 16)  # one prefix sum for both counts
            until = tl.cumsum(both, 0)
            before_above = above + ((until - both) & 0xFFFF)
            before_equal = equal + ((until - both) >> 16)
            pick = (is_above == 1) | ((is_equal == 1) & (before_equal < wanted))
            nth = before_above + tl.minimum(before_equal, wanted)
            tl.store(picked_ptr + nth, columns - start, mask=pick)
            above += tl.sum(is_above)
            equal += tl.sum(is_equal)
            at += BLOCK

    if TO_SLOTS:
        tl.debug_barrier()  # what other threads of this program have picked is there
        request = tl.load(request_of_row_ptr + row).to(tl.int64) if LISTED else row // rows_per_request
        pages = pages_of_row(request, requests, pages)
        for at in range(0, k, BLOCK):
            nth = at + steps
            positions = tl.load(picked_ptr + nth, mask=nth < k, other=-1)
            slots = slots_of(positions, table_ptr + request * table_stride, pages, page_tokens, slot_count)
            tl.store(picked_ptr + nth, slots, mask=nth < k)


def launch_portable(call: Call, picked: torch.Tensor, launch: PortableLaunch) -> None:
    """Fill `picked`, int32 [t, k], with what the call wants; the grid is one program a row."""
    by_place, used = row_arguments(call, picked)
    with torch.cuda.device_of(call.logits):
        _select_row[(call.logits.shape[0],)](
            *by_place,
            **used,
            BITS=launch.digit_bits,
            BLOCK=launch.block,
            num_warps=launch.warps,
        )
