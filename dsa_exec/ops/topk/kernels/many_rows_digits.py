"""Radix selection by one block: digits counted in shared memory, and the thresholds of candidates found that way.

Each tensor holds one number a thread, so that the code reads as one thread's work.

`cells` is an address in shared memory. From there lie, in bytes: one word for each warp; the digit found, how many
numbers are above it and how many have it (DIGIT); a total (TOTAL); how many candidates there are (COUNTER); the
greatest key and the greatest inverted key of the sample (SAMPLE_BOUNDS) and of the candidates (BOUNDS); the lowest key
of candidates (THRESHOLD).
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from dsa_exec.ops.topk.kernels import many_rows_ptx as ptx

DIGIT = gl.constexpr(128)
TOTAL = gl.constexpr(140)
COUNTER = gl.constexpr(144)
SAMPLE_BOUNDS = gl.constexpr(148)
BOUNDS = gl.constexpr(156)
THRESHOLD = gl.constexpr(164)
CELLS_BYTES = gl.constexpr(256)
BINS = gl.constexpr(2048)
"""Counts of one digit, which has 11 bits; a word each."""

LOWEST = gl.constexpr(0x007FFFFF)
"""The key of -inf, and of NaN. No key is lower; 0 stands for none."""

HIGHEST = gl.constexpr(0xFF800000)
"""The key of inf."""

_SYNC = gl.constexpr(ptx.SYNC)
_LOAD = gl.constexpr(ptx.LOAD)
_LOAD_IF = gl.constexpr(ptx.LOAD_IF)
_STORE_IF = gl.constexpr(ptx.STORE_IF)
_LOAD_PAIR = gl.constexpr(ptx.LOAD_PAIR)
_CLEAR_PAIR = gl.constexpr(ptx.CLEAR_PAIR)
_BIT_LENGTH = gl.constexpr(ptx.BIT_LENGTH)
_BLOCK_SCAN = gl.constexpr(ptx.BLOCK_SCAN)
_WARP_MAX = gl.constexpr(ptx.WARP_MAX)
_COUNT = gl.constexpr(ptx.COUNT)
_LOAD_VECTOR_IF = gl.constexpr(ptx.LOAD_VECTOR_IF)


@gluon.jit
def asm(code: gl.constexpr, constraints: gl.constexpr, args):
    """Inline PTX with one 32-bit result, which is never left out."""
    return gl.inline_asm_elementwise(code, constraints, args, dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def sync():
    """A barrier of the block."""
    asm(_SYNC, "=r", [])


@gluon.jit
def load(address):
    """The word in shared memory."""
    return asm(_LOAD, "=r,r", [address])


@gluon.jit
def load_if(address, flag):
    """The word in shared memory, or 0."""
    return asm(_LOAD_IF, "=&r,r,r", [address, flag.to(gl.int32)])


@gluon.jit
def store_if(address, value, flag):
    """Write a word to shared memory, where the flag is set."""
    asm(_STORE_IF, "=r,r,r,r", [address, value, flag.to(gl.int32)])


@gluon.jit
def key_of(score):
    """The unsigned number in the order of scores; NaN is as -inf."""
    score = gl.where(score == score, score, float("-inf")) + 0.0  # -0.0 becomes 0.0
    bits = score.to(gl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(gl.uint32, bitcast=True)


@gluon.jit
def score_of(key):
    """The score that a key is of."""
    bits = key.to(gl.int32, bitcast=True)
    return (bits ^ (((bits ^ -1) >> 31) | -2147483648)).to(gl.float32, bitcast=True)


@gluon.jit
def scan(number, cells):
    """Inclusive prefix sum over the block. Holds a barrier; another must come before the next scan."""
    return asm(_BLOCK_SCAN, "=r,r,r,r", [number, cells, number * 0 + gl.num_warps()])


@gluon.jit
def count_digit(number, lo, span, shift, bins):
    """Counts the digits of those numbers that lie in [lo, lo + span]. No barrier."""
    asm(_COUNT, "=r,r,r,r,r,r", [number, lo, span, shift, bins])


@gluon.jit
def digit_shift(span):
    """How many bits of a number below `span` come after its first digit."""
    bits = gl.inline_asm_elementwise(_BIT_LENGTH, "=r,r", [span], dtype=gl.int32, is_pure=True, pack=1)
    return gl.maximum(bits - 11, 0).to(gl.uint32)


@gluon.jit
def narrow(lo, span, wanted, bins, cells, tid):
    """Narrows a range of numbers to the digit that the `wanted`-th greatest of those counted has.

    Args:
        lo, span: the range is [lo, lo + span].
        wanted: at least 1 and at most as many as were counted.
        bins: the counts. They are zero afterwards.
        cells, tid: as in the kernel.

    Returns:
        lo, span, wanted: the same for that digit.
        count: how many numbers have it.
    """
    OWN: gl.constexpr = BINS // (32 * gl.num_warps())
    sync()
    own = bins + (BINS - OWN) * 4 - tid * (OWN * 4)  # the first threads have the greatest digits
    counts = ()
    total = tid * 0
    for i in gl.static_range(OWN // 2):
        low, high = gl.inline_asm_elementwise(
            _LOAD_PAIR, "=r,=r,r", [own + 8 * i], dtype=(gl.int32, gl.int32), is_pure=False, pack=1
        )
        asm(_CLEAR_PAIR, "=r,r", [own + 8 * i])
        counts = counts + (low, high)
        total += low + high
    above = scan(total, cells) - total
    for i in gl.static_range(OWN):
        count = counts[OWN - 1 - i]
        hit = (above < wanted) & (above + count >= wanted)
        found = tid * 0 + cells + DIGIT
        store_if(found, BINS - 1 - tid * OWN - i, hit)
        store_if(found + 4, above, hit)
        store_if(found + 8, count, hit)
        above += count
    sync()
    shift = digit_shift(span)
    below = load(cells + DIGIT).to(gl.uint32) << shift
    rest = (shift * 0 + 1 << shift) - 1
    wanted -= load(cells + DIGIT + 4)
    return lo + below, gl.minimum(span - below, rest), wanted, load(cells + DIGIT + 8)


@gluon.jit
def nth_best(numbers, lo, span, wanted, slack, bins, cells, tid):
    """Narrows a range until at most `slack` more numbers than wanted are left in it, or it is one number."""
    going = wanted * 0 + 1
    count = wanted
    while going != 0:
        shift = digit_shift(span)
        for i in gl.static_range(len(numbers)):
            count_digit(numbers[i], lo, span, shift, bins)
        lo, span, wanted, count = narrow(lo, span, wanted, bins, cells, tid)
        going = ((count > wanted + slack) & (span != 0)).to(gl.int32)
    return lo, wanted, count


@gluon.jit
def range_of(keys, bounds):
    """Least key and span of the block's keys, those that are 0 left out. Holds a barrier."""
    greatest = keys[0] * 0
    inverted = greatest
    for i in gl.static_range(len(keys)):
        greatest = gl.maximum(greatest, keys[i])
        inverted = gl.maximum(inverted, gl.where(keys[i] == 0, 0, keys[i] ^ 0xFFFFFFFF))
    asm(_WARP_MAX, "=r,r,r", [bounds, greatest])
    asm(_WARP_MAX, "=r,r,r", [bounds + 4, inverted])
    sync()
    lo = load(bounds + 4).to(gl.uint32, bitcast=True) ^ 0xFFFFFFFF
    return lo, load(bounds).to(gl.uint32, bitcast=True) - lo


@gluon.jit
def _threshold(lo, is_one_number):
    """The lowest key of candidates, and whether the cells with the key one below it are to be taken from the row.

    So it is where too many have that key, and where it is the lowest one: NaN does not pass a comparison of floats.
    """
    ties = (is_one_number | (lo == LOWEST)).to(gl.int32)
    return lo + ties.to(gl.uint32), ties


@gluon.jit
def load_vector(vectors, number, flag):
    """Four cells from an address divisible by 16."""
    address = vectors + number.to(gl.int64) * 16
    return gl.inline_asm_elementwise(
        _LOAD_VECTOR_IF,
        "=f,=f,=f,=f,l,r",
        [address, flag.to(gl.int32)],
        dtype=(gl.float32, gl.float32, gl.float32, gl.float32),
        is_pure=False,
        pack=1,
    )


@gluon.jit
def sampled_threshold(row, n, k, bins, cells, tid, CAPACITY: gl.constexpr, SAMPLE: gl.constexpr):
    """A threshold (see `_threshold`) that more than k of the row's cells probably reach, but not too many."""
    THREADS: gl.constexpr = 32 * gl.num_warps()
    # Runs of 8 cells, a memory sector, one at a pseudorandom place in each of as many parts of the row.
    part = n // (SAMPLE // 8)
    keys = ()
    for i in gl.static_range(SAMPLE // THREADS):
        run = (i * THREADS + tid) // 8
        place = gl.umulhi(run.to(gl.uint32) * 2654435761, (part - 7).to(gl.uint32)).to(gl.int32)
        keys = keys + (key_of(gl.load(row + (run * part + place + tid % 8))),)
    # Four standard deviations on either side, as if the row were in random order.
    chosen = k.to(gl.float32) / n.to(gl.float32)
    kept = CAPACITY / n.to(gl.float32)
    least = SAMPLE * chosen + 4.0 * gl.sqrt(SAMPLE * chosen * (1.0 - chosen)) + 4.0
    most = SAMPLE * kept - 4.0 * gl.sqrt(SAMPLE * kept * (1.0 - kept))
    rank = gl.minimum(least.to(gl.int32), SAMPLE)
    slack = gl.maximum(most.to(gl.int32) - rank, 2)
    lo, span = range_of(keys, cells + SAMPLE_BOUNDS)
    lo, wanted, count = nth_best(keys, lo, span, rank, slack, bins, cells, tid)
    return _threshold(lo, count > wanted + slack)


@gluon.jit
def certain_threshold(vectors, before, n, k, bins, cells, tid, CAPACITY: gl.constexpr):
    """A threshold (see `_threshold`) that at most CAPACITY cells reach, and k or more unless it is of ties."""
    THREADS: gl.constexpr = 32 * gl.num_warps()
    lo = (k * 0).to(gl.uint32) + LOWEST
    span = (k * 0).to(gl.uint32) + (HIGHEST - LOWEST)
    wanted = k
    excess = k * 0 + 1
    going = excess
    while going != 0:
        shift = digit_shift(span)
        for first in range(0, (n + before + 3) // 4, THREADS):
            column = (first + tid) * 4 - before
            scores = load_vector(vectors, first + tid, column < n)
            for i in gl.static_range(4):
                inside = (column + i >= 0) & (column + i < n)
                count_digit(gl.where(inside, key_of(scores[i]), 0), lo, span, shift, bins)
        lo, span, wanted, count = narrow(lo, span, wanted, bins, cells, tid)
        excess = (k - wanted + count > CAPACITY).to(gl.int32)
        going = excess * (span != 0).to(gl.int32)
    return _threshold(lo, excess != 0)
