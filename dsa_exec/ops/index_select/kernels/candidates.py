"""Candidates of a query row, in Triton: the keys that may be among its k best so far.

A candidate is 64 bits: the score as an unsigned integer in the same order, then the position with its bits turned, so
that of equal scores the lower position is the larger number. No two are equal, and the k largest are the answer.

They lie in memory in the order of their positions. A key is appended if its score is above the row's threshold, the
k-th best score at some time before: of an equal score the earlier position wins. When there is no room for another tile
of keys, the k best are kept, in the same order, and the threshold rises to the least of them. So what is selected does
not depend on when that happens, nor on how the keys are shared out.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dsa_exec.core.kernels.slots import slots_of


@triton.jit
def offer(candidates, counts, thresholds, keys, positions, CAPACITY: tl.constexpr):
    """Append those of a tile of keys that are above their row's threshold.

    Args:
        candidates: int64 pointer, CAPACITY for each row; there is room for the tile.
        counts: int32 [rows], how many there are.
        thresholds: uint32 [rows].
        keys: uint32 [tile, rows], in the order of their scores; 0 where a row does not see the position.
        positions: int32 [tile], rising, beyond those of all candidates.

    Returns:
        The new counts.
    """
    above = keys > thresholds[None, :]
    flags = above.to(tl.int32)
    place = tl.arange(0, keys.shape[1])[None, :] * CAPACITY + counts[None, :] + tl.cumsum(flags, 0) - flags
    tl.store(candidates + place, _packed(keys, positions[:, None]), mask=above)
    return counts + tl.sum(flags, 0)


@triton.jit
def _packed(keys, positions):
    turned = (positions ^ -1).to(tl.uint32, bitcast=True)
    return ((keys.to(tl.uint64) << 32) | turned.to(tl.uint64)).to(tl.int64, bitcast=True)


@triton.jit
def offer_candidates(candidates, count, threshold, others):
    """Append those of some candidates of later positions that are above the threshold; `others` has zeros for none.

    Returns:
        The new count.
    """
    above = (others.to(tl.uint64, bitcast=True) >> 32).to(tl.uint32) > threshold
    flags = above.to(tl.int32)
    tl.store(candidates + count + tl.cumsum(flags, 0) - flags, others, mask=above)
    return count + tl.sum(flags, 0)


@triton.jit
def _kth(candidates, k):
    """A number that exactly the k largest of uint64 candidates reach. There are more than k; the rest is 0."""
    kth = tl.zeros((), tl.uint64)
    reached = k + 1
    bit = tl.full((), 63, tl.int32)
    while (reached != k) & (bit >= 0):
        tried = kth | (tl.full((), 1, tl.uint64) << bit.to(tl.uint64))
        count = tl.sum((candidates >= tried).to(tl.int32), 0)
        kth = tl.where(count >= k, tried, kth)
        reached = tl.where(count >= k, count, reached)
        bit -= 1
    return kth


@triton.jit
def keep_best(candidates, count, k, CAPACITY: tl.constexpr):
    """Keep the k best of a row that has more, in their order. Whoever calls it has seen to it that all are written.

    Returns:
        The threshold: the score of the least of them.
    """
    at = tl.arange(0, CAPACITY)
    numbers = tl.load(candidates + at, mask=at < count, other=0).to(tl.uint64, bitcast=True)
    kept = numbers >= _kth(numbers, k)
    flags = kept.to(tl.int32)
    tl.debug_barrier()  # all have been read before one is written over
    tl.store(candidates + tl.cumsum(flags, 0) - flags, numbers.to(tl.int64, bitcast=True), mask=kept)
    least = tl.min(tl.where(kept, numbers >> 32, 0xFFFFFFFF), 0)
    return least.to(tl.uint32)


@triton.jit
def keep_best_of_rows(candidates, counts, thresholds, k, CAPACITY: tl.constexpr):
    """`keep_best` for every row of a program that has more than k. Returns counts and thresholds."""
    ROWS: tl.constexpr = counts.shape[0]
    rows = tl.arange(0, ROWS)
    tl.debug_barrier()  # what other threads have appended is there
    for row in tl.range(0, ROWS):
        count = tl.sum(tl.where(rows == row, counts, 0), 0)
        if count > k:
            least = keep_best(candidates + row * CAPACITY, count, k, CAPACITY)
            counts = tl.where(rows == row, k, counts)
            thresholds = tl.where(rows == row, least, thresholds)
    tl.debug_barrier()  # before anything is appended
    return counts, thresholds


@triton.jit
def write_picks(
    candidates,
    picked,
    first,
    length,
    origin,
    k,
    table,
    pages,
    page_tokens,
    slot_count,
    TO_SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write what a row selects: int32 [k], ascending, -1 behind the last.

    Args:
        candidates: pointer to the k best, if the row sees more than k positions.
        picked: pointer to the result.
        first: the first position that the row sees.
        length: how many it sees.
        origin: positions are told relative to this.
        k: how many are wanted.
        table, pages, page_tokens, slot_count: as of `slots_of`; not looked at without TO_SLOTS.
        TO_SLOTS: slots are wanted in place of positions.
        BLOCK: written at once.
    """
    for at in tl.range(0, k, BLOCK):
        nth = at + tl.arange(0, BLOCK)
        wanted = nth < tl.minimum(length, k)
        places = nth + first
        if length > k:
            numbers = tl.load(candidates + nth, mask=wanted, other=0)
            places = numbers.to(tl.int32) ^ -1  # the lower half
        places = tl.where(wanted, places - origin, -1)
        if TO_SLOTS:
            places = slots_of(places, table, pages, page_tokens, slot_count)
        tl.store(picked + nth, places, mask=nth < k)
