"""A row's candidates in the fused kernel for Hopper: the least score of the k best is found by counting, and they stay.

A warp has a row, or two.

Scores become unsigned numbers in the same order, between which the search bisects and interpolates; what is counted are
the scores themselves, from registers, 4096 a row at most. There is no candidate that is NaN.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from dsa_exec.core.kernels.hopper_indexer import barrier
from dsa_exec.ops.index_select.kernels import hopper_ptx

MOST = gl.constexpr(4096)
CELLS = gl.constexpr(gl.BlockedLayout([1, 4], [1, 32], [4, 1], [1, 0]))
ALL = gl.constexpr(0x7FFFFFFF)
JOIN = gl.constexpr(hopper_ptx.JOIN)
IS_ANY_LEFT = gl.constexpr(hopper_ptx.IS_ANY_LEFT)
END_VECTOR = gl.constexpr(hopper_ptx.END_VECTOR)
OTHERS = gl.constexpr(256)  # kept beyond the k best while more keys come: the search for a threshold ends sooner
LINES_AHEAD = gl.constexpr(4)
LANES = gl.constexpr(gl.BlockedLayout([1, 1], [1, 32], [4, 1], [1, 0]))  # of a number for each row, or each lane of it


@gluon.jit
def ptx(code: gl.constexpr, constraints: gl.constexpr, args):
    """Run a text of `hopper_ptx.py` for each element; gives $0."""
    return gl.inline_asm_elementwise(code, constraints, args, dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def of_rows(numbers, rows: gl.constexpr):
    """[rows] in the layout of a number a row, for each lane of its warp."""
    zero = gl.zeros([rows, 32], numbers.dtype, LANES)
    return gl.convert_layout(numbers, gl.SliceLayout(1, LANES))[:, None] + zero


@gluon.jit
def _ordered(score):
    """A number in the order of scores, never 0."""
    bits = score.to(gl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) | -2147483648)).to(gl.uint32, bitcast=True)


@gluon.jit
def _score(ordered):
    bits = ordered.to(gl.int32, bitcast=True)
    return (bits ^ (((bits ^ -1) >> 31) | -2147483648)).to(gl.float32, bitcast=True)


@gluon.jit
def _reach(scores, least):
    """How many scores of each row are no less; what is not there is NaN."""
    flags = gl.where(scores >= least[:, None], 1.0, 0.0)
    # Short sums side by side, which do not wait for each other.
    fours = gl.sum(gl.reshape(flags, [4, MOST // 4, 4]), axis=2)
    return gl.convert_layout(gl.sum(fours, axis=1), gl.SliceLayout(1, CELLS)).to(gl.int32)


@gluon.jit
def _is_any(flags):
    """Whether any thread of the block has one that is not 0; a barrier."""
    ptx(JOIN, "=r,r", [flags])
    return ptx(IS_ANY_LEFT, "=r", []) != 0


@gluon.jit
def _find_least(memory, counts, k, most):
    """The least score to keep so that at least k are, and how many of exactly that score, of 4 rows.

    Args:
        memory: pointers to the rows' candidates, whose scores come first; NaN behind the last to the end of a vector.
        counts: how many there are.
        k: how many are wanted. Of rows with no more all are kept.
        most: more than this are not kept, k or greater.

    Returns:
        The least score; how many of that score are kept, ALL if as many as there are.
    """
    cell = gl.arange(0, MOST, layout=gl.SliceLayout(0, CELLS))
    is_in = (cell // 4 * 4)[None, :] < counts[:, None]
    scores = gl.load(memory[:, None] + cell[None, :], mask=is_in, other=float("nan"))
    low = gl.where(counts > 0, _ordered(gl.min(scores, axis=1)), 1).to(gl.uint32)
    high = gl.where(counts > most, _ordered(gl.max(scores, axis=1)) + 1, low + 1).to(gl.uint32)
    low_count = counts
    high_count = counts * 0
    step = 0
    while _is_any((high - low > 1).to(gl.int32)):
        width = high - low
        # Where the k-th lies if scores are spread evenly; each fourth time in the middle, whatever they are.
        share = ((low_count - k).to(gl.float32) + 0.5) / gl.maximum(low_count - high_count, 1).to(gl.float32)
        guess = gl.minimum(gl.maximum(width.to(gl.float32) * share, 1.0), 4.0e9).to(gl.uint32)
        guess = gl.where((step & 3) == 3, width >> 1, guess)
        middle = low + gl.minimum(gl.maximum(guess, 1), width - 1)
        count = _reach(scores, _score(middle))
        live = width > 1
        enough = live & (count >= k)
        low = gl.where(enough, middle, low)
        low_count = gl.where(enough, count, low_count)
        high_count = gl.where(live & (count < k), count, high_count)
        high = gl.where(enough & (count <= most), middle + 1, gl.where(live & (count < k), middle, high))
        step += 1
    least = _score(low)
    same = counts * 0 + ALL
    tied = low_count > most
    if _is_any(tied.to(gl.int32)):  # more are equal to the k-th than there is room for
        above = _reach(scores, _score(low + 1))
        same = gl.where(tied, k - above, same)
    return least, same


@gluon.jit
def _four_of(numbers, part: gl.constexpr, PARTS: gl.constexpr):
    """Numbers of four of 4 * PARTS rows, as the search takes them."""
    if PARTS == 1:
        four = numbers
    else:
        parts = gl.reshape(numbers, [PARTS, 4])
        number = gl.arange(0, PARTS, layout=gl.SliceLayout(1, parts.type.layout))
        four = gl.sum(gl.where((number == part)[:, None], parts, 0), axis=0)
    return gl.convert_layout(four, gl.SliceLayout(1, CELLS))


@gluon.jit
def _put_four(numbers, four, part: gl.constexpr, PARTS: gl.constexpr):
    """The same with numbers of four rows put in."""
    if PARTS == 1:
        put = gl.convert_layout(four, numbers.type.layout)
    else:
        parts = gl.reshape(numbers, [PARTS, 4])
        number = gl.arange(0, PARTS, layout=gl.SliceLayout(1, parts.type.layout))
        those = gl.convert_layout(four, gl.SliceLayout(0, parts.type.layout))
        put = gl.reshape(gl.where((number == part)[:, None], those[None, :], parts), [4 * PARTS])
        put = gl.convert_layout(put, numbers.type.layout)
    return put


@gluon.jit
def keep_best(
    memory, row_memory, counts, thresholds, to, minus, k, FINAL: gl.constexpr, ROWS: gl.constexpr,
    CAPACITY: gl.constexpr,
):  # fmt: skip
    """Keep the best candidates of every row; FINAL: write their positions where they belong, and nothing else.

    Args:
        memory: pointer to the candidates of the program's rows.
        row_memory: address of those of each row, for each lane.
        counts: how many there are, for each lane.
        thresholds: of each row, for each lane.
        to: address of the result of each row.
        minus: what positions are told relative to, of each row.
        k: how many are wanted.
        FINAL: whether this is the end.
        ROWS: of the program.
        CAPACITY: candidates that a row has room for.

    Returns:
        Counts and thresholds.
    """
    PARTS: gl.constexpr = ROWS // 4
    KEEP: gl.constexpr = hopper_ptx.keep(CAPACITY, LINES_AHEAD)
    ptx(END_VECTOR, "=r,l,r", [row_memory, counts])
    barrier()  # what other lanes have appended is there
    row_counts = gl.max(counts, axis=1)
    least = row_counts.to(gl.float32)
    same = row_counts
    most = k
    if not FINAL:
        most += OTHERS
    for part in gl.static_range(PARTS):
        number = gl.arange(0, 4, layout=gl.SliceLayout(1, CELLS)) + part * 4
        these = memory + number.to(gl.int64) * (2 * CAPACITY)
        found, of_least = _find_least(these, _four_of(row_counts, part, PARTS), k, most)
        least = _put_four(least, found, part, PARTS)
        same = _put_four(same, of_least, part, PARTS)
    least_of_lane = of_rows(least, ROWS)
    target = row_memory + 4 * CAPACITY
    subtracted = counts * 0
    moves = counts * 0 + 1
    if FINAL:
        target = of_rows(to, ROWS)
        subtracted = of_rows(minus, ROWS)
        moves = counts * 0
    inputs = [row_memory, counts, least_of_lane, of_rows(same, ROWS), moves, target, subtracted]
    kept = ptx(KEEP, "=r,l,r,f,r,r,l,r", inputs)
    barrier()  # before anything is appended, and before the memory is used for other rows
    return kept, gl.where(counts >= k, least_of_lane, thresholds)
