"""How a cluster finds a digit of the k-th best key: each block counts its own, and reads what matters of the others."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from dsa_exec.ops.topk.kernels.cluster_memory import (
    ADD,
    ADD_WARP,
    BEFORE,
    COARSE,
    COARSE_SUMS,
    COUNT,
    COUNTS,
    FINE_SUMS,
    SUM_DIGITS,
    SYNC_BLOCK,
    find,
    load_of_block,
    ptx,
    sync_cluster,
)


@gluon.jit
def count_digits(keys, lowest, span, shift, mask, step):
    """Count the digits (key >> shift) & mask of the keys from `lowest` to `lowest + span`, as digit number `step`."""
    ptx(COUNT, "=r,r,r,r,r,r,r", [keys, lowest, span, shift, mask, COUNTS + step * 8192])


@gluon.jit
def find_digit(wanted, step, rank, BLOCKS: gl.constexpr, THREADS: gl.constexpr):
    """Find the digit of the key that is number `wanted` from the top, when every block has counted its digits.

    Digits are found in two steps, first 64 of them, then one of these, so that a block reads little of the others:
    64 counters, and 64 more. One barrier of the cluster. What the blocks before this one have above the digit, and at
    it, is added up on the way.

    Args:
        wanted: 1 or more, and no more than there are.
        step: 0, 1 or 2: which digit.
        rank: this block's number in the cluster.
        BLOCKS: of the cluster.
        THREADS: one index a thread, int32.

    Returns:
        The digit, how many keys have a higher one, and how many have it.
    """
    WARPS_OF_BLOCK: gl.constexpr = gl.num_warps()
    T: gl.constexpr = 32 * WARPS_OF_BLOCK
    tid = gl.arange(0, T, layout=THREADS)
    lane = tid % 32
    counts = COUNTS + step * 8192
    coarse = COARSE + step * 256
    coarse_sums = COARSE_SUMS + step * 256
    fine_sums = FINE_SUMS + step * 256
    ptx(SYNC_BLOCK, "=r", [])
    for i in gl.static_range(2048 // T):
        word = i * T + tid
        ptx(SUM_DIGITS, "=r,r,r", [counts + word * 4, coarse + word // 32 * 4])
    sync_cluster(BLOCKS)

    COARSE_WORDS: gl.constexpr = 64 * BLOCKS
    numbers = ()
    for i in gl.static_range((COARSE_WORDS + T - 1) // T):  # all loads first: each is a trip to another processor
        at = i * T + tid
        number = load_of_block(coarse + at % 64 * 4, at // 64, (at < COARSE_WORDS).to(gl.int32), BLOCKS)
        numbers = numbers + (number,)
    for i in gl.static_range((COARSE_WORDS + T - 1) // T):
        at = i * T + tid
        ptx(ADD, "=r,r,r", [coarse_sums + at % 64 * 4, numbers[i]])
    ptx(SYNC_BLOCK, "=r", [])
    group, above_group, _ = find(coarse_sums, wanted)
    if BLOCKS > 1:
        for i in gl.static_range((COARSE_WORDS + T - 1) // T):
            at = i * T + tid
            counted = (at % 64 > group) & (at // 64 < rank)
            ptx(ADD_WARP, "=r,r,r", [tid * 0 + BEFORE, gl.where(counted, numbers[i], 0)])

    FINE_WORDS: gl.constexpr = 32 * BLOCKS
    words = ()
    for i in gl.static_range((FINE_WORDS + T - 1) // T):
        at = i * T + tid
        word = load_of_block(counts + (group * 32 + lane) * 4, at // 32, (at < FINE_WORDS).to(gl.int32), BLOCKS)
        words = words + (word,)
    for i in gl.static_range((FINE_WORDS + T - 1) // T):
        ptx(ADD, "=r,r,r", [fine_sums + lane * 8, words[i] & 0xFFFF])
        ptx(ADD, "=r,r,r", [fine_sums + lane * 8 + 4, (words[i] >> 16) & 0xFFFF])
    ptx(SYNC_BLOCK, "=r", [])
    digit, above, found = find(fine_sums, wanted - above_group)
    if BLOCKS > 1:
        for i in gl.static_range((FINE_WORDS + T - 1) // T):
            earlier = (i * T + tid) // 32 < rank
            low = words[i] & 0xFFFF
            high = (words[i] >> 16) & 0xFFFF
            over = gl.where(lane * 2 > digit, low, 0) + gl.where(lane * 2 + 1 > digit, high, 0)
            at_digit = gl.where(lane * 2 == digit, low, 0) + gl.where(lane * 2 + 1 == digit, high, 0)
            ptx(ADD_WARP, "=r,r,r", [tid * 0 + BEFORE, gl.where(earlier, over, 0)])
            ptx(ADD_WARP, "=r,r,r", [tid * 0 + (BEFORE + 4) + step * 4, gl.where(earlier, at_digit, 0)])
    return group * 64 + digit, above_group + above, found
