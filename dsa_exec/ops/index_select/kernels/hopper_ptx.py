"""What the fused kernel for Hopper does with scores and candidates in PTX: a warp has a row, a lane its share of it.

Gluon has no ballots, no address of shared memory, and no barrier that also tells whether any thread wants something.
Each text is one thread's work; `$0` is always written, as an asm statement must have a result. Labels and registers are
local to the braces, but for those of `declare`.

Scores of two spans lie in shared memory, one row after the other. A row's candidates lie in memory: CAPACITY scores,
and behind them CAPACITY positions, both in the order of positions. Of 128 in a line lane l has four, from 4 l on.
"""

from __future__ import annotations

from triton import constexpr_function

LINE = 128
PAD = 8
"""Words between rows in shared memory, so that rows that are written together lie in different banks."""


@constexpr_function
def declare(rows: int, span: int) -> str:
    """The memory for scores of two spans, and what each thread knows of how many candidates there are."""
    memory = f".shared .align 16 .b8 span_scores[{2 * rows * (span + PAD) * 4}];"
    return f"{memory} .reg .u32 most_found, any_left; mov.u32 most_found, 0; mov.u32 any_left, 0; mov.u32 $0, 0;"


# $1: offset in bytes, $2: score.
KEEP_SCORE = "{ .reg .u32 a; mov.u32 a, span_scores; add.u32 a, a, $1; st.shared.f32 [a], $2; mov.u32 $0, 0; }"

# A barrier of the block. $0: whether any row had more than $1 candidates when it was last offered some.
IS_ANY_FULL = (
    "{ .reg .pred p; setp.gt.u32 p, most_found, $1; bar.red.or.pred p, 0, p; selp.u32 $0, 1, 0, p; "
    "mov.u32 most_found, 0; }"
)

# $1 joins what the next IS_ANY_LEFT tells: a barrier of the block, $0: whether any thread has joined another than 0.
JOIN = "or.b32 any_left, any_left, $1; mov.u32 $0, 0;"
IS_ANY_LEFT = (
    "{ .reg .pred p; setp.ne.u32 p, any_left, 0; bar.red.or.pred p, 0, p; selp.u32 $0, 1, 0, p; mov.u32 any_left, 0; }"
)

# $1: address of a row's candidates, $2: how many there are. The rest of their last vector of four becomes NaN.
END_VECTOR = (
    "{ .reg .pred p; .reg .u32 i, e; .reg .u64 to; add.u32 e, $2, 3; and.b32 e, e, 0xfffffffc; mov.u32 i, %laneid; "
    "add.u32 i, i, $2; setp.lt.u32 p, i, e; mad.wide.u32 to, i, 4, $1; @p st.global.u32 [to], 0x7fc00000; "
    "mov.u32 $0, 0; }"
)


@constexpr_function
def _places(flags: list[str], counter: str) -> list[str]:
    """From predicates of a lane's four, `at`: the place of the first of them that is flagged; the counter moves on."""
    lines = [f"vote.sync.ballot.b32 b{e}, {flag}, 0xffffffff;" for e, flag in enumerate(flags)]
    lines += [f"and.b32 c, b{e}, below; popc.b32 d{e}, c;" for e in range(4)]
    lines += [f"add.u32 d0, d0, d1; add.u32 d2, d2, d3; add.u32 at, d0, d2; add.u32 at, at, {counter};"]
    lines += [f"popc.b32 d{e}, b{e};" for e in range(4)]
    return [*lines, f"add.u32 d0, d0, d1; add.u32 d2, d2, d3; add.u32 d0, d0, d2; add.u32 {counter}, {counter}, d0;"]


@constexpr_function
def offer(line: int) -> str:
    """Append to a row's candidates those scores of a line of a span that are above the threshold, in their order.

    $1: offset of this lane's first score in shared memory, $2: threshold, NaN to take all, $3: position of this lane's
    first, from where the row's window begins, $4: how many positions from there on are offered, $5: how many candidates
    there are, $6: address of the row's candidates, $7: position of this lane's first; of the span's first line, all of
    them. $8: bytes from scores to positions. $0: how many there are then.
    """
    lines = [
        "{ .reg .pred p<4>; .reg .u32 a, b<4>, c, d<4>, at, n, below; .reg .u64 to, place; .reg .f32 v<4>;",
        "mov.u32 a, span_scores; add.u32 a, a, $1; mov.u32 n, $5; mov.u32 below, %lanemask_lt;",
        f"ld.shared.v4.f32 {{v0, v1, v2, v3}}, [a + {line * LINE * 4}];",
    ]
    for e in range(4):
        lines += [
            f"max.f32 v{e}, v{e}, 0fFF800000; setp.gtu.f32 p{e}, v{e}, $2;",  # NaN becomes -inf
            f"add.u32 c, $3, {line * LINE + e}; setp.lt.and.u32 p{e}, c, $4, p{e};",
        ]
    lines += [*_places([f"p{e}" for e in range(4)], "n"), "mad.wide.u32 to, at, 4, $6; add.u64 place, to, $8;"]
    for e in range(4):
        lines.append(
            f"@p{e} st.global.f32 [to], v{e}; @p{e} add.u64 to, to, 4; add.u32 c, $7, {line * LINE + e}; "
            f"@p{e} st.global.u32 [place], c; @p{e} add.u64 place, place, 4;"
        )
    return "\n".join([*lines, "max.u32 most_found, most_found, n; mov.u32 $0, n; }"])


@constexpr_function
def _load(names: list[str], ahead: int, capacity: int) -> list[str]:
    """Scores v and positions w of some lines, `ahead` lines behind the one at `from`; NaN beyond the last."""
    text = []
    for line, name in enumerate(names):
        v, w = ([f"{letter}{name}_{e}" for e in range(4)] for letter in "vw")
        at = (ahead + line) * LINE
        text += [f"mov.f32 {score}, 0f7FC00000;" for score in v]
        text += [
            f"add.u32 c, i, {at}; setp.lt.u32 p, c, $2;",
            f"@p ld.global.v4.f32 {{{', '.join(v)}}}, [from + {at * 4}];",
            f"@p ld.global.v4.u32 {{{', '.join(w)}}}, [from + {(at + capacity) * 4}];",
        ]
    return text


@constexpr_function
def _keep_line(name: str, *, ties: bool) -> list[str]:
    """Write those of a line that are kept."""
    flags = [f"k{e}" for e in range(4)]
    text = [f"setp.ge.f32 k{e}, v{name}_{e}, $3;" for e in range(4)]
    if ties:
        text += [f"setp.eq.f32 p, v{name}_{e}, $3; selp.u32 e{e}, 1, 0, p;" for e in range(4)]
        text += [f"setp.ne.u32 p, e{e}, 0; vote.sync.ballot.b32 b{e}, p, 0xffffffff;" for e in range(4)]
        text += [f"and.b32 c, b{e}, below; popc.b32 d{e}, c;" for e in range(4)]
        text.append("add.u32 d0, d0, d1; add.u32 d2, d2, d3; add.u32 at, d0, d2; add.u32 at, at, same;")
        for e in range(4):
            text.append(
                f"setp.ge.u32 p, at, $4; setp.ne.and.u32 p, e{e}, 0, p; not.pred p, p; and.pred k{e}, k{e}, p; "
                f"add.u32 at, at, e{e};"
            )
        text += [f"popc.b32 d{e}, b{e}; add.u32 same, same, d{e};" for e in range(4)]
    text += [*_places(flags, "n"), "mad.wide.u32 to, at, 4, $6; mad.wide.u32 score_to, at, 4, $1;"]
    for e in range(4):
        text.append(
            f"sub.u32 c, w{name}_{e}, $7; @k{e} st.global.u32 [to], c; @k{e} add.u64 to, to, 4; "
            f"and.pred p, k{e}, moves; @p st.global.f32 [score_to], v{name}_{e}; @p add.u64 score_to, score_to, 4;"
        )
    return text


@constexpr_function
def keep(capacity: int, lines: int) -> str:
    """Move those candidates of a row to the front that are kept, in their order, and their positions to anywhere.

    Lines are read some ahead of those that are written, which lie no further than what has been read.

    $1: address of the row's candidates, NaN behind the last to the end of a vector of four, $2: how many there are, $3:
    the least score that is kept, $4: how many of that score are, the first ones, 0x7fffffff for all, $5: whether scores
    are moved too, $6: where positions go to, $7: what is subtracted from them. $0: how many were kept.
    """
    sets = [[f"{letter}{line}" for line in range(lines)] for letter in "ab"]
    names = [f"{name}_{e}" for one in sets for name in one for e in range(4)]
    step = lines * LINE
    text = [
        "{ .reg .pred p, moves, k<4>; .reg .u32 b<4>, c, d<4>, e<4>, at, n, same, i, done, below; .reg .u64 from, to;",
        f".reg .u64 score_to; .reg .u32 {', '.join(f'w{name}' for name in names)};",
        f".reg .f32 {', '.join(f'v{name}' for name in names)};",
        "mov.u32 below, %lanemask_lt; mov.u32 i, %laneid; mul.wide.u32 from, i, 16; add.u64 from, from, $1;",
        "shl.b32 i, i, 2; mov.u32 n, 0; mov.u32 same, 0; mov.u32 done, 0; setp.ne.u32 moves, $5, 0;",
        *_load(sets[0], 0, capacity),
        "setp.ne.u32 p, $4, 0x7fffffff; @p bra TIES;",
    ]
    for ties in (False, True):
        label = "TIES" if ties else "NEXT"
        text.append(f"{label}:")
        for here, there in ((0, 1), (1, 0)):
            text += ["setp.ge.u32 p, done, $2; @p bra DONE;", *_load(sets[there], lines, capacity)]
            for name in sets[here]:
                text += _keep_line(name, ties=ties)
            text.append(f"add.u32 i, i, {step}; add.u32 done, done, {step}; add.u64 from, from, {step * 4};")
        text.append(f"bra {label};")
    return "\n".join([*text, "DONE: mov.u32 $0, n; }"])
