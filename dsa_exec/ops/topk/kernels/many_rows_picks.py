"""How one block picks the k best cells of its row, and puts them in order."""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from dsa_exec.ops.topk.kernels import many_rows_ptx as ptx
from dsa_exec.ops.topk.kernels.many_rows_digits import (
    BINS,
    BOUNDS,
    COUNTER,
    LOWEST,
    THRESHOLD,
    TOTAL,
    asm,
    certain_threshold,
    key_of,
    load,
    load_if,
    load_vector,
    nth_best,
    range_of,
    sampled_threshold,
    scan,
    score_of,
    store_if,
    sync,
)

_WINDOW = gl.constexpr(32 * BINS.value)
"""Columns that the bitmap holds. It lies where the counts are, which are zero between searches."""

_OR_IF = gl.constexpr(ptx.OR_IF)
_LOAD_PAIR = gl.constexpr(ptx.LOAD_PAIR)
_CLEAR_PAIR = gl.constexpr(ptx.CLEAR_PAIR)
_POPULATION = gl.constexpr(ptx.POPULATION)
_BALLOT = gl.constexpr(ptx.BALLOT)
_BITS_BELOW = gl.constexpr(ptx.BITS_BELOW)
_PREFETCH_IF = gl.constexpr(ptx.PREFETCH_IF)


@gluon.jit
def pick_in_registers(cell, n, k, base, bins, cells, tid, CELLS: gl.constexpr):
    """Writes the columns of the k best of a row of at most CELLS cells in ascending order from `base` on."""
    THREADS: gl.constexpr = 32 * gl.num_warps()
    keys = ()
    for i in gl.static_range(CELLS // THREADS):
        at = i * THREADS + tid
        keys = keys + (gl.where(at < n, key_of(gl.load(cell + at, mask=at < n, other=0.0)), 0),)
    lo, span = range_of(keys, cells + BOUNDS)
    lo, wanted, count = nth_best(keys, lo, span, k, 0, bins, cells, tid)
    last = n
    if count > wanted:  # of the cells with this key, the first ones
        inverted = ()
        for i in gl.static_range(CELLS // THREADS):
            number = gl.where(keys[i] == lo, n - 1 - i * THREADS - tid, -1)
            inverted = inverted + (number.to(gl.uint32, bitcast=True),)
        least, wanted, count = nth_best(inverted, lo * 0, (n - 1).to(gl.uint32), wanted, 0, bins, cells, tid)
        last = n - 1 - least.to(gl.int32)
    # A warp holds 32 columns side by side: how many of them are picked, then how many before them.
    ballots = ()
    lane = tid & 31
    for i in gl.static_range(CELLS // THREADS):
        at = i * THREADS + tid
        is_picked = (keys[i] > lo) | ((keys[i] == lo) & (at <= last))
        ballots = ballots + (asm(_BALLOT, "=r,r", [is_picked.to(gl.int32)]),)
        store_if(bins + (at >> 5) * 4, asm(_POPULATION, "=r,r", [ballots[i]]), lane == 0)
    sync()
    own = load_if(bins + tid * 4, tid < CELLS // 32)
    upto = scan(own, cells)
    store_if(bins + tid * 4, upto - own, tid < CELLS // 32)
    sync()
    for i in gl.static_range(CELLS // THREADS):
        at = i * THREADS + tid
        place = load(bins + (at >> 5) * 4) + asm(_BITS_BELOW, "=r,r", [ballots[i]])
        store_if(base + place * 4, at, ((ballots[i] >> lane) & 1) != 0)
    sync()


@gluon.jit
def _gather(vectors, before, n, key, base, cells, tid, CAPACITY: gl.constexpr, VECTORS: gl.constexpr):
    """Makes candidates of the row's cells with at least this key. Holds a barrier before; none after."""
    store_if(tid * 0 + cells + COUNTER, tid * 0, tid == 0)
    store_if(tid * 0 + cells + THRESHOLD, (tid * 0 + key).to(gl.int32, bitcast=True), tid == 0)
    sync()
    threshold = score_of(key)
    same = score_of(load(cells + THRESHOLD))
    THREADS: gl.constexpr = 32 * gl.num_warps()
    BLOCK: gl.constexpr = THREADS * VECTORS
    FROM_BASE: gl.constexpr = CAPACITY * 8 + BINS * 4 + COUNTER
    STEP: gl.constexpr = ptx.step(VECTORS, THREADS, CAPACITY, FROM_BASE)
    RAGGED: gl.constexpr = ptx.ragged_step(VECTORS, THREADS, CAPACITY, FROM_BASE)
    count = (n + before + 3) // 4  # vectors that hold cells of the window; the first and the last may hold others too
    address = vectors + (tid + 1).to(gl.int64) * 16
    column = (tid + 1) * 4 - before
    steps = (count - 2) // BLOCK
    for _ in range(steps):
        asm(STEP, "=r,l,f,f,r,r", [address, threshold, same, column, base])
        address += BLOCK * 16
        column += BLOCK * 4
    done = 1 + steps * BLOCK
    for first in range(0, count - done + 1, BLOCK):
        args = [vectors, threshold, same, base, first + tid, count - done, done, before, n]
        asm(RAGGED, "=r,l,f,f,r,r,r,r,r,r", args)


@gluon.jit
def _add_ties(vectors, before, n, k, key, found, columns, cells, tid):
    """Adds the columns of the row's first cells that have a key to the `found` ones, until there are k."""
    THREADS: gl.constexpr = 32 * gl.num_warps()
    score = score_of(key)
    first = k * 0
    while (found < k) & (first < (n + before + 3) // 4):
        column = (first + tid) * 4 - before
        scores = load_vector(vectors, first + tid, column < n)
        is_tie = ()
        ties = tid * 0
        for i in gl.static_range(4):
            same = (scores[i] == score) | ((scores[i] != scores[i]) & (key == LOWEST))
            is_tie = is_tie + ((same & (column + i >= 0) & (column + i < n)).to(gl.int32),)
            ties += is_tie[i]
        upto = scan(ties, cells)
        at = found + upto - ties
        for i in gl.static_range(4):
            store_if(columns + at * 4, column + i, (is_tie[i] != 0) & (at < k))
            at += is_tie[i]
        store_if(tid * 0 + cells + TOTAL, upto, tid == THREADS - 1)
        sync()
        found = gl.minimum(found + load(cells + TOTAL), k)
        first += THREADS
    return found


@gluon.jit
def _drop_losers(candidates, n, k, base, bins, cells, tid, CAPACITY: gl.constexpr):
    """Writes -1 in place of the columns of those candidates that are not among the k best."""
    THREADS: gl.constexpr = 32 * gl.num_warps()
    keys = ()
    for i in gl.static_range(CAPACITY // THREADS):
        at = i * THREADS + tid
        score = load_if(base + at * 4, at < candidates).to(gl.float32, bitcast=True)
        keys = keys + (gl.where(at < candidates, key_of(score), 0),)
    lo, span = range_of(keys, cells + BOUNDS)
    lo, wanted, count = nth_best(keys, lo, span, k, 0, bins, cells, tid)
    last = n
    if count > wanted:  # of the cells with this key, the first ones
        inverted = ()
        for i in gl.static_range(CAPACITY // THREADS):
            is_tie = keys[i] == lo
            column = load_if(base + CAPACITY * 4 + (i * THREADS + tid) * 4, is_tie)
            inverted = inverted + (gl.where(is_tie, n - 1 - column, -1).to(gl.uint32, bitcast=True),)
        least, wanted, count = nth_best(inverted, lo * 0, (n - 1).to(gl.uint32), wanted, 0, bins, cells, tid)
        last = n - 1 - least.to(gl.int32)
    for i in gl.static_range(CAPACITY // THREADS):
        at = base + CAPACITY * 4 + (i * THREADS + tid) * 4
        column = load_if(at, keys[i] == lo)
        store_if(at, tid * 0 - 1, (keys[i] < lo) | ((keys[i] == lo) & (column > last)))


@gluon.jit
def _put_in_order(candidates, n, base, bins, cells, tid, CAPACITY: gl.constexpr):
    """Writes the candidates' columns, without those that are -1, in ascending order from `base` on."""
    THREADS: gl.constexpr = 32 * gl.num_warps()
    OWN: gl.constexpr = BINS // THREADS
    before_word = base + (CAPACITY - BINS) * 4  # of each word of the bitmap, how many columns come before it
    placed = n * 0
    for start in range(0, n, _WINDOW):
        columns = ()
        for i in gl.static_range(CAPACITY // THREADS):
            at = i * THREADS + tid
            column = load_if(base + CAPACITY * 4 + at * 4, at < candidates)
            column = gl.where((at < candidates) & (column >= 0), column - start, -1)
            column = gl.where(column < _WINDOW, column, -1)
            word = bins + (column >> 5) * 4
            asm(_OR_IF, "=r,r,r,r", [word, (tid * 0 + 1) << (column & 31), (column >= 0).to(gl.int32)])
            columns = columns + (column,)
        sync()
        words = ()
        own = tid * 0
        for i in gl.static_range(OWN // 2):
            low, high = gl.inline_asm_elementwise(
                _LOAD_PAIR,
                "=r,=r,r",
                [bins + tid * (OWN * 4) + 8 * i],
                dtype=(gl.int32, gl.int32),
                is_pure=False,
                pack=1,
            )
            words = words + (asm(_POPULATION, "=r,r", [low]), asm(_POPULATION, "=r,r", [high]))
            own += words[2 * i] + words[2 * i + 1]
        upto = scan(own, cells)
        before = placed + upto - own
        for i in gl.static_range(OWN):
            store_if(before_word + tid * (OWN * 4) + 4 * i, before, tid >= 0)
            before += words[i]
        store_if(tid * 0 + cells + TOTAL, upto, tid == THREADS - 1)
        sync()
        for i in gl.static_range(CAPACITY // THREADS):
            at = (columns[i] >> 5) * 4
            is_in = columns[i] >= 0
            lower = load_if(bins + at, is_in) & (((tid * 0 + 1) << (columns[i] & 31)) - 1)
            place = load_if(before_word + at, is_in) + asm(_POPULATION, "=r,r", [lower])
            store_if(base + place * 4, columns[i] + start, is_in)
        placed += load(cells + TOTAL)
        sync()
        if start + _WINDOW < n:
            for i in gl.static_range(OWN // 2):
                asm(_CLEAR_PAIR, "=r,r", [bins + tid * (OWN * 4) + 8 * i])
            sync()


@gluon.jit
def pick_from_memory(
    cell,
    n,
    k,
    base,
    bins,
    cells,
    tid,
    ahead,
    CAPACITY: gl.constexpr,
    SAMPLE: gl.constexpr,
    VECTORS: gl.constexpr,
    AHEAD_BYTES: gl.constexpr,
):
    """Writes the columns of the k best of a longer row in ascending order from `base` on."""
    before = ((cell.to(gl.int64) >> 2) & 3).to(gl.int32)  # cells between the last address divisible by 16 and the row
    vectors = cell.to(gl.int64) - before.to(gl.int64) * 4
    threshold, ties = sampled_threshold(cell, n, k, bins, cells, tid, CAPACITY, SAMPLE)
    candidates = n
    tries = k * 0
    while tries < 2:
        _gather(vectors, before, n, threshold, base, cells, tid, CAPACITY, VECTORS)
        sync()
        candidates = load(cells + COUNTER)
        if (candidates < k) & (ties != 0):
            columns = base + CAPACITY * 4
            candidates = _add_ties(vectors, before, n, k, threshold - 1, candidates, columns, cells, tid)
        tries += 1
        if (candidates >= k) & (candidates <= CAPACITY):
            tries = k * 0 + 2
        elif tries == 1:
            threshold, ties = certain_threshold(vectors, before, n, k, bins, cells, tid, CAPACITY)
    if AHEAD_BYTES > 0:
        # Blocks run in step, all searching at the same time: this gives memory something to do meanwhile.
        bytes = gl.minimum(n // 4 * 16, AHEAD_BYTES)
        flag = ((tid == 0) & (ahead != 0)).to(gl.int32)
        asm(_PREFETCH_IF, "=r,l,r,r", [(vectors + ahead * 4) >> 4 << 4, bytes, flag])
    if candidates > k:
        _drop_losers(candidates, n, k, base, bins, cells, tid, CAPACITY)
    _put_in_order(candidates, n, base, bins, cells, tid, CAPACITY)
