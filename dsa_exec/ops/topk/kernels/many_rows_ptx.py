"""What the kernel for many rows says in PTX: atomics and addresses in shared memory, warp scans, and its inner loop.

Gluon has none of these. Each text is one thread's work; `$0` is always written, as an asm statement must have a result.
Labels and registers are local to the braces.
"""

from __future__ import annotations

from triton import constexpr_function

BASE = "mov.u32 $0, global_smem;"
AWAIT_KERNEL_BEFORE = "griddepcontrol.wait; mov.u32 $0, 0;"
SYNC = "bar.sync 0; mov.u32 $0, 0;"
# $1: address. LOAD_IF and STORE_IF take their flag last.
LOAD = "ld.shared.u32 $0, [$1];"
LOAD_IF = "{ .reg .pred p; setp.ne.u32 p, $2, 0; mov.u32 $0, 0; @p ld.shared.u32 $0, [$1]; }"
STORE_IF = "{ .reg .pred p; setp.ne.u32 p, $3, 0; @p st.shared.u32 [$1], $2; mov.u32 $0, 0; }"
OR_IF = "{ .reg .pred p; setp.ne.u32 p, $3, 0; @!p bra SKIP; red.shared.or.b32 [$1], $2; SKIP: mov.u32 $0, 0; }"
LOAD_PAIR = "ld.shared.v2.u32 {$0, $1}, [$2];"
CLEAR_PAIR = "{ .reg .u32 z; mov.u32 z, 0; st.shared.v2.u32 [$1], {z, z}; mov.u32 $0, 0; }"
BIT_LENGTH = "{ .reg .u32 z; clz.b32 z, $1; sub.u32 $0, 32, z; }"
POPULATION = "popc.b32 $0, $1;"
BALLOT = "{ .reg .pred p; setp.ne.u32 p, $1, 0; vote.sync.ballot.b32 $0, p, 0xffffffff; }"
BITS_BELOW = "{ .reg .u32 t; mov.u32 t, %lanemask_lt; and.b32 t, t, $1; popc.b32 $0, t; }"  # of $1, below this lane's
# Brings $2 bytes from address $1 on, both divisible by 16, from memory into the second-level cache, if $3.
PREFETCH_IF = "{ .reg .pred p; setp.ne.u32 p, $3, 0; @p cp.async.bulk.prefetch.L2.global [$1], $2; mov.u32 $0, 0; }"
# $1: address of a vector, $2: whether to load it.
LOAD_VECTOR_IF = (
    "{ .reg .pred p; setp.ne.u32 p, $5, 0; mov.f32 $0, 0f7FC00000; mov.f32 $1, 0f7FC00000; mov.f32 $2, 0f7FC00000; "
    "mov.f32 $3, 0f7FC00000; @p ld.global.v4.f32 {$0, $1, $2, $3}, [$4]; }"
)
# Counts the digit of $1 (see `narrow`): $2 <= $1 <= $2 + $3 are counted, digits are of ($1 - $2) >> $4, bins start at
# $5.
COUNT = (
    "{ .reg .pred p; .reg .u32 d; sub.u32 d, $1, $2; setp.le.u32 p, d, $3; @!p bra SKIP; shr.u32 d, d, $4; "
    "mad.lo.u32 d, d, 4, $5; red.shared.add.u32 [d], 1; SKIP: mov.u32 $0, 0; }"
)
# The word at $1 becomes at least the largest $2 of the warp.
WARP_MAX = (
    "{ .reg .pred p; .reg .u32 m, l; redux.sync.max.u32 m, $2, 0xffffffff; mov.u32 l, %laneid; setp.eq.u32 p, l, 0; "
    "@p red.shared.max.u32 [$1], m; mov.u32 $0, 0; }"
)


@constexpr_function
def _scan(value: str) -> str:
    """Inclusive prefix sum over the warp, in place; needs `.reg .pred p; .reg .u32 t`."""
    step = "shfl.sync.up.b32 t|p, {v}, {d}, 0, 0xffffffff; @p add.u32 {v}, {v}, t; "
    return "".join(step.format(v=value, d=distance) for distance in (1, 2, 4, 8, 16))


# $1: this thread's number, $2: address of one word a warp, $3: warps. $0: inclusive prefix sum over the block.
# Holds one barrier; another must come before the next scan.
BLOCK_SCAN = (
    "{ .reg .pred p; .reg .u32 t, i, l, w, a, s; mov.u32 l, %laneid; mov.u32 w, %tid.x; shr.u32 w, w, 5; "
    "mov.u32 i, $1; "
    f"{_scan('i')}mad.lo.u32 a, w, 4, $2; setp.eq.u32 p, l, 31; @p st.shared.u32 [a], i; bar.sync 0; "
    "mad.lo.u32 a, l, 4, $2; setp.lt.u32 p, l, $3; mov.u32 s, 0; @p ld.shared.u32 s, [a]; "
    f"{_scan('s')}sub.u32 w, w, 1; shfl.sync.idx.b32 t, s, w, 31, 0xffffffff; setp.eq.s32 p, w, -1; "
    "@!p add.u32 i, i, t; mov.u32 $0, i; }"
)


@constexpr_function
def _append(cells: list[tuple[str, str, str]], shared: str, capacity: int, counter: int) -> list[str]:
    """Adds the cells at or above the threshold to the candidates: scores at `shared`, columns `capacity` words behind.

    One atomic addition a warp makes room; what does not fit is only counted. The threshold is $2 and, to the assembler
    another number, $3: it would otherwise keep the flags of all cells between count and store, which takes longer than
    to compare again.

    Args:
        cells: of each, the register of its score, and its column as a register and a number to add to it.
        shared: a register.
        capacity: candidates that there is room for.
        counter: where the word that counts them is, in bytes from `shared`.
    """
    lines = [f"mov.u32 n{i}, 0;" for i in range(4)]
    for i, cell in enumerate(cells):
        lines.append(f"setp.ge.f32 p, {cell[0]}, $2; @p add.u32 n{i % 4}, n{i % 4}, 1;")
    lines += ["add.u32 n0, n0, n1; add.u32 n2, n2, n3; add.u32 n0, n0, n2; mov.u32 i, n0;", _scan("i")]
    lines += [
        "shfl.sync.idx.b32 n1, i, 31, 31, 0xffffffff; setp.eq.u32 p, n1, 0; @p bra DONE;",
        f"mov.u32 t, %laneid; setp.eq.u32 p, t, 31; @p atom.shared.add.u32 t, [{shared} + {counter}], n1;",
        "shfl.sync.idx.b32 t, t, 31, 31, 0xffffffff;",
        f"add.u32 n1, n1, t; setp.gt.u32 p, n1, {capacity}; @p bra DONE;",
        f"add.u32 t, t, i; sub.u32 t, t, n0; mad.lo.u32 at, t, 4, {shared};",
    ]
    for score, column, further in cells:
        lines.append(
            f"setp.ge.f32 p, {score}, $3; @p st.shared.f32 [at], {score}; @p add.u32 t, {column}, {further}; "
            f"@p st.shared.u32 [at + {4 * capacity}], t; @p add.u32 at, at, 4;"
        )
    return [*lines, "DONE: mov.u32 $0, 0; }"]


@constexpr_function
def _registers(vectors: int) -> str:
    """The head of a step."""
    return f"{{ .reg .pred p; .reg .u32 n<4>, i, t, at; .reg .f32 v<{4 * vectors}>;"


@constexpr_function
def step(vectors: int, threads: int, capacity: int, counter: int) -> str:
    """One step of a block over whole vectors of 4 cells that all lie in the row's window.

    $1: address of this thread's first vector, $2, $3: threshold, $4: its first cell's column, $5: shared memory.
    """
    lines = [_registers(vectors)]
    cells = []
    for n in range(vectors):
        v = [f"v{4 * n + e}" for e in range(4)]
        lines.append(f"ld.global.nc.L1::no_allocate.v4.f32 {{{', '.join(v)}}}, [$1 + {n * threads * 16}];")
        cells += [(v[e], "$4", str(n * threads * 4 + e)) for e in range(4)]
    return "\n".join(lines + _append(cells, "$5", capacity, counter))


@constexpr_function
def ragged_step(vectors: int, threads: int, capacity: int, counter: int) -> str:
    """One step over the vectors that are left, and the row's first one: not all of their cells lie in the window.

    $1: address of vector 0, $2, $3: threshold, $4: shared memory, $5: number of this thread's first vector among those
    left, $6: how many are left (the one after them is vector 0), $7: number of the first of them in the row, $8: cells
    of vector 0 before the window, $9: cells of the window.
    """
    lines = [_registers(vectors), f".reg .pred q; .reg .u64 a; .reg .u32 c<{vectors}>;"]
    cells = []
    for n in range(vectors):
        v = [f"v{4 * n + e}" for e in range(4)]
        lines += [f"mov.f32 {score}, 0f7FC00000;" for score in v]
        lines += [
            f"add.u32 i, $5, {n * threads}; add.u32 t, i, $7; setp.lt.s32 p, i, $6; selp.b32 t, t, 0, p;",
            "setp.le.s32 q, i, $6; mad.wide.u32 a, t, 16, $1;",
            f"@q ld.global.v4.f32 {{{', '.join(v)}}}, [a];",
            f"shl.b32 c{n}, t, 2; sub.u32 c{n}, c{n}, $8;",
        ]
        for e in range(4):
            lines.append(f"add.u32 t, c{n}, {e}; setp.ge.u32 p, t, $9; @p mov.f32 {v[e]}, 0f7FC00000;")
        cells += [(v[e], f"c{n}", str(e)) for e in range(4)]
    return "\n".join(lines + _append(cells, "$4", capacity, counter))
