"""The k best of several parts' candidates: one program a row.

The least key that k candidates reach is found two bits at a time, and of those that have exactly that key the last
position that is among the k, likewise: each step counts all candidates, which lie in the first-level cache. A last pass
takes what is kept in its order. Nothing depends on who arrives first.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from dsa_exec.core.kernels.order import ordered_keys
from dsa_exec.core.kernels.slots import pages_of_row, slots_of
from dsa_exec.ops.topk_merge import UNBOUND, Call
from dsa_exec.ops.topk_merge.launch import PortableLaunch

ALL = tl.constexpr(UNBOUND)
SIGN = tl.constexpr(-(2**31))


@triton.jit
def _candidates(row_ptr, half_stride, cells, each):
    """Keys and positions of some of a part's candidates; key 0, below every score's, where there is no position."""
    inside = cells < each
    positions = tl.load(row_ptr + half_stride + cells, mask=inside, other=-1)
    bits = tl.load(row_ptr + cells, mask=inside, other=0)
    keys = ordered_keys(bits.to(tl.float32, bitcast=True))
    return tl.where(positions >= 0, keys, 0), positions


@triton.jit
def _share(count, nth: tl.constexpr):
    """One of three counts that share a number."""
    return ((count >> (21 * nth)) & 0x1FFFFF).to(tl.int32)


@triton.jit
def _three(flags_1, flags_2, flags_3):
    """Three counts of flags, side by side in one number."""
    low = tl.sum(flags_1.to(tl.int32)).to(tl.int64) + (tl.sum(flags_2.to(tl.int32)).to(tl.int64) << 21)
    return low + (tl.sum(flags_3.to(tl.int32)).to(tl.int64) << 42)


@triton.jit
def _reach(row, keys, low, step, BLOCK: tl.constexpr, HELD: tl.constexpr):
    """How many candidates have the key low + step or a greater one, low + 2 * step, low + 3 * step: in one number."""
    first, second, third = low + step, low + 2 * step, low + 3 * step
    if HELD:
        count = _three(keys >= first, keys >= second, keys >= third)
    else:
        row_ptr, part_stride, half_stride, parts, each = row
        count = tl.zeros((), tl.int64)
        for part in range(parts):
            for at in range(0, each, BLOCK):
                some, _ = _candidates(row_ptr + part * part_stride, half_stride, at + tl.arange(0, BLOCK), each)
                count += _three(some >= first, some >= second, some >= third)
    return count


@triton.jit
def _reach_tied(row, least, low, step, BLOCK: tl.constexpr):
    """How many candidates have exactly this key up to the position low + step, low + 2 * step, low + 3 * step."""
    row_ptr, part_stride, half_stride, parts, each = row
    first, second, third = low + step, low + 2 * step, low + 3 * step
    count = tl.zeros((), tl.int64)
    for part in range(parts):
        for at in range(0, each, BLOCK):
            part_ptr = row_ptr + part * part_stride
            keys, positions = _candidates(part_ptr, half_stride, at + tl.arange(0, BLOCK), each)
            tied = keys == least
            count += _three(tied & (positions <= first), tied & (positions <= second), tied & (positions <= third))
    return count


@triton.jit
def _find_bounds(row, k, BLOCK: tl.constexpr, HELD: tl.constexpr):
    """The least key that is kept, and the last position of exactly that key.

    Args:
        row: pointer to the row, part_stride, half_stride, parts, and candidates of each.
        k: how many are kept.
        BLOCK: candidates looked at at once.
        HELD: how many parts there are at most, each of one block, whose keys are held in registers; 0 for none.
    """
    row_ptr, part_stride, half_stride, parts, each = row
    keys = tl.zeros([1], tl.uint32)
    if HELD:
        part = tl.arange(0, HELD)[:, None]
        cells = tl.where(part < parts, tl.arange(0, BLOCK)[None, :], each)  # beyond the last: none
        keys, _ = _candidates(row_ptr + part * part_stride, half_stride, cells, each)
    one = tl.full((), 1, tl.uint32)
    low = one * 0  # reached by k or more, or by all there are
    low_count = _share(_reach(row, keys, low, one, BLOCK, HELD), 0)
    step = one << 30  # fewer than k reach low + 4 * step
    while (step > 0) & (low_count > k):
        counts = _reach(row, keys, low, step, BLOCK, HELD)
        first, second, third = _share(counts, 0), _share(counts, 1), _share(counts, 2)
        steps = (first >= k).to(tl.uint32) + (second >= k).to(tl.uint32) + (third >= k).to(tl.uint32)
        low_count = tl.where(steps == 1, first, tl.where(steps == 2, second, tl.where(steps == 3, third, low_count)))
        low += steps * step
        step = step >> 2
    last = tl.full((), ALL, tl.int64)
    if low_count > k:
        before = tl.full((), -1, tl.int64)  # fewer than wanted are up to here
        tied = _share(_reach_tied(row, low, before, last + 1, BLOCK), 0)
        wanted = k - (low_count - tied)
        step_tied = tl.full((), 2**30, tl.int64)
        while step_tied > 0:
            counts = _reach_tied(row, low, before, step_tied, BLOCK)
            first, second, third = _share(counts, 0), _share(counts, 1), _share(counts, 2)
            fewer = (first < wanted).to(tl.int64) + (second < wanted).to(tl.int64) + (third < wanted).to(tl.int64)
            before += fewer * step_tied
            step_tied = step_tied >> 2
        last = before + 1
    return low, last.to(tl.int32)


@triton.jit(do_not_specialize=["parts", "each", "k", "first", "count", "of", "block", "pages", "page_tokens",
                               "slot_count", "requests", "rows_per_request"])  # fmt: skip
def _merge_row(
    candidates_ptr,
    bounds_ptr,
    picked_ptr,
    counts_ptr,
    blocks_ptr,
    table_ptr,
    request_of_row_ptr,
    part_stride,
    row_stride,
    half_stride,
    bound_stride,
    table_stride,
    parts,
    each,
    k,
    first,
    count,
    of,
    block,
    requests,
    pages,
    page_tokens,
    slot_count,
    rows_per_request,
    FIND: tl.constexpr,
    NUMBERED: tl.constexpr,
    LISTED_BLOCKS: tl.constexpr,
    TO_SLOTS: tl.constexpr,
    LISTED: tl.constexpr,
    HELD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    row_ptr = candidates_ptr + row * row_stride
    bound_ptr = bounds_ptr + row * bound_stride
    part_stride = part_stride.to(tl.int64)
    if FIND:
        least, last = _find_bounds((row_ptr, part_stride, half_stride, parts, each), k, BLOCK, HELD)
        tl.store(bound_ptr, least.to(tl.int32, bitcast=True) ^ SIGN)
        tl.store(bound_ptr + 1, last)
    else:
        least = (tl.load(bound_ptr) ^ SIGN).to(tl.uint32, bitcast=True)
        last = tl.load(bound_ptr + 1)
    if LISTED_BLOCKS:
        block = tl.load(blocks_ptr + row)
    block = block.to(tl.int64)
    if TO_SLOTS:
        request = tl.load(request_of_row_ptr + row).to(tl.int64) if LISTED else row // rows_per_request
        pages = pages_of_row(request, requests, pages)
    picked_ptr += row * k
    steps = tl.arange(0, BLOCK)
    done = 0
    for part in range(first, first + count):
        for at in range(0, each, BLOCK):
            keys, positions = _candidates(row_ptr + part * part_stride, half_stride, at + steps, each)
            kept = (positions >= 0) & ((keys > least) | ((keys == least) & (positions <= last)))
            until = tl.cumsum(kept.to(tl.int32), 0)
            nth = done + until - 1
            if NUMBERED:
                far = positions.to(tl.int64)
                positions = (far // (block * of) * block + far % block).to(tl.int32)
                if TO_SLOTS:
                    positions = tl.where(kept, positions, -1)
                    table_row = table_ptr + request * table_stride
                    positions = slots_of(positions, table_row, pages, page_tokens, slot_count)
            tl.store(picked_ptr + nth, positions, mask=kept & (nth < k))
            done += tl.sum(kept.to(tl.int32))
    tl.store(counts_ptr + row, tl.minimum(done, k))
    for at in range(0, k, BLOCK):
        nth = at + steps
        tl.store(picked_ptr + nth, tl.full([BLOCK], -1, tl.int32), mask=(nth >= done) & (nth < k))


def _held(parts: int, each: int, launch: PortableLaunch) -> int:
    """For how many parts a program holds keys in registers, a power of two; 0 if there are too many."""
    held: int = triton.next_power_of_2(parts)
    return held if each <= launch.block and held * launch.block <= launch.held else 0


def launch_portable(
    call: Call, picked: torch.Tensor, counts: torch.Tensor, bounds: torch.Tensor, launch: PortableLaunch
) -> None:
    """Fill `picked`, int32 [t, k], `counts`, int32 [t], and `bounds`, int32 [t, 2], if they are not given.

    There is at least one row.
    """
    told, keep, slot_map, unused = call.candidates, call.keep, call.slot_map, bounds
    parts, rows, _, each = told.shape
    block = 1 if keep is None else keep.split.block
    blocks = block if isinstance(block, torch.Tensor) else None
    of_row = None if slot_map is None else slot_map.request_of_row
    kept = call.kept_parts
    with torch.cuda.device_of(told):
        _merge_row[(rows,)](
            told,
            bounds,
            picked,
            counts,
            unused if blocks is None else blocks,
            unused if slot_map is None else slot_map.page_table,
            unused if of_row is None else of_row,
            told.stride(0),
            told.stride(1),
            told.stride(2),
            bounds.stride(0),
            0 if slot_map is None else slot_map.page_table.stride(0),
            parts,
            each,
            call.k,
            kept.start,
            len(kept),
            1 if keep is None else keep.split.parts,
            block if blocks is None else 1,
            0 if slot_map is None else slot_map.page_table.shape[0],
            0 if slot_map is None else slot_map.page_table.shape[1],
            1 if slot_map is None else slot_map.page_tokens,
            0 if slot_map is None else slot_map.slot_count,
            1 if slot_map is None else slot_map.rows_per_request,
            FIND=call.bounds is None,
            NUMBERED=keep is not None,
            LISTED_BLOCKS=blocks is not None,
            TO_SLOTS=slot_map is not None,
            LISTED=of_row is not None,
            HELD=_held(parts, each, launch),
            BLOCK=launch.block,
            num_warps=launch.warps,
        )
