"""Draws docs/pictures/fused-select.svg: how the `gluon` backend of `index_select` selects without writing logits.

`python docs/scripts/fused_select.py`. Its figures are those of the kernel's launch, so that it is drawn anew when these
change.
"""

from __future__ import annotations

from pathlib import Path

from dataflow import STYLE, arrow, box, framed, lane, note

from dsa_exec.ops.index_select.hopper_launch import BETWEEN, COLUMNS, hopper_launch

FILE = Path(__file__).parents[1] / "pictures" / "fused-select.svg"
WIDTH, HEIGHT = 1000, 880
MIB = 2**20

K, HEADS, QUERIES, CONTEXT = 2048, 64, 4096, 65536
LAUNCH = hopper_launch()
ROWS = COLUMNS // HEADS
SLOT = 128
SPAN = OTHERS = BETWEEN // 2
"""Keys of a span, and candidates that are kept beyond the k best while more keys come."""

PAD = 8
"""Words between rows of scores on the chip."""

MOST_KEPT = K + OTHERS
FULL = LAUNCH.capacity - SPAN
LOGITS_BYTES = QUERIES * CONTEXT * 4
CANDIDATE_BYTES = LAUNCH.candidate_bytes(LAUNCH.programs_for(LAUNCH.groups(QUERIES, HEADS)), HEADS)
MOST_CANDIDATE_BYTES = LAUNCH.candidate_bytes(LAUNCH.programs, HEADS)
SCORE_BYTES = 2 * ROWS * (SPAN + PAD) * 4

MORE_STYLE = """
.done { stroke: #9aa5b1; stroke-dasharray: 2 3; fill: none }
.room { stroke: #a86a11; stroke-dasharray: 5 4; fill: none }
.new { fill: #fbe3b8; stroke: #a86a11 }
"""


def mib(size: int) -> str:
    """Bytes in words."""
    return f"{size / 2**30:g} GiB" if size % 2**30 == 0 else f"{size / MIB:.4g} MiB"


def tiles() -> list[str]:
    """The keys: some that are done with, those in the ring, and those to come."""
    kinds = ["done"] * 3 + ["data"] * LAUNCH.stages + ["cache"] * 4
    parts = [box(kind, 46 + 55 * nth, 68, 50, 32, f"{nth * SLOT}") for nth, kind in enumerate(kinds)]
    return [
        note(46, 60, "keys, e4m3 [context, 128], in the order of their positions"),
        *parts,
        note(46, 118, "done"),
        note(248, 118, f"{LAUNCH.stages} slots of {SLOT} on the chip"),
        note(431, 118, "to come"),
    ]


def on_the_chip() -> list[str]:
    """Scores, and what is offered."""
    return [
        '<rect class="lane" x="30" y="132" width="622" height="222"/>',
        '<text class="kind" x="104" y="153">on the chip: a program of four warps</text>',
        arrow((236, 100), (236, 124), (90, 124), (90, 172)),
        box(
            "work",
            46,
            172,
            172,
            116,
            "*score",
            "in registers:",
            "relu(q . k) x weight,",
            "summed over heads,",
            "x the key's scale",
        ),
        box("data", 248, 172, 180, 50, f"*scores of {SPAN} keys", "are being written"),
        box("data", 248, 238, 180, 50, f"*the {SPAN} before", "are offered meanwhile"),
        arrow((218, 197), (248, 197)),
        arrow((338, 222), (338, 238)),
        note(46, 316, f"Scores stay in shared memory, {SCORE_BYTES / 1024:.3g} KiB a program;"),
        note(46, 334, "candidates alone go to the device's memory."),
        box("data", 458, 160, 178, 46, "*a row's threshold", "at first none: all pass"),
        box(
            "work",
            458,
            230,
            178,
            108,
            "*offer",
            "score > threshold?",
            "no: it is gone",
            "yes: a ballot of the warp",
            "gives it the next place",
        ),
        arrow((547, 206), (547, 230)),
        arrow((428, 263), (458, 263)),
    ]


def workspace() -> list[str]:
    """A row's candidates in the device's memory."""
    left, width, top, height = 46, 590, 392, 42

    def at(candidates: int) -> int:
        return round(left + width * candidates / LAUNCH.capacity)

    kept, new, full, end = at(MOST_KEPT), at(3360), at(FULL), at(LAUNCH.capacity)
    return [
        note(left, 382, "candidates of one row, in the order of their positions"),
        box("cache", left, top, kept - left, height, f"the best so far: {K}, up to {OTHERS} more"),
        box("new", kept, top, new - kept, height, "appended since"),
        box("room", new, top, full - new, height, "room"),
        box("room", full, top, end - full, height, f"{SPAN}"),
        arrow((520, 338), (520, 392)),
        note(kept, 450, f"{MOST_KEPT}", "middle"),
        note(full, 450, f"full: {FULL}", "middle"),
        note(80, 468, f"score f32 and position i32: {LAUNCH.capacity} x 8 bytes a row, {ROWS} rows a program,"),
        note(
            80,
            486,
            f"{LAUNCH.programs} programs at most: {mib(MOST_CANDIDATE_BYTES)}, whatever the rows and the context",
        ),
    ]


def selection() -> list[str]:
    """Finding the best, the way back and the end."""
    return [
        box(
            "work",
            46,
            512,
            410,
            112,
            "*keep the best",
            f"the least score to keep: {K} reach it, or up to {OTHERS} more;",
            "found by guesses, and counts of the scores in registers",
            "of too many equal scores the first ones are kept;",
            "all stay in the order of their positions",
        ),
        arrow((62, 512), (62, 434)),
        arrow((598, 456), (598, 544), (456, 544)),
        note(588, 516, "a row is full:", "end"),
        note(588, 534, f"for all {ROWS} rows", "end"),
        arrow((456, 598), (664, 598), (664, 183), (636, 183)),
        note(648, 616, "threshold = the least kept", "end"),
        arrow((250, 624), (250, 664)),
        note(262, 650, f"at the end exactly {K}"),
        box("cache", 46, 664, 410, 50, "*positions, int32 [rows, k]", "ascending as they lie: nothing is sorted"),
        note(474, 685, f"Rows that see {K} keys or"),
        note(474, 703, "fewer select all, without this."),
    ]


def apart() -> list[str]:
    """What the ops apart do, and their logits beside the candidates, to one scale."""
    side = round((256 * 248 * CANDIDATE_BYTES / LOGITS_BYTES) ** 0.5)
    return [
        lane(692, 14, 294, 716, "the same by the ops apart"),
        box("cache", 711, 68, 256, 32, "keys, e4m3 [context, 128]"),
        arrow((839, 100), (839, 142)),
        box("work", 711, 142, 256, 48, "+mqa_logits", "every score of every row"),
        arrow((839, 190), (839, 232)),
        note(851, 216, "written"),
        box(
            "cache",
            711,
            232,
            256,
            248,
            "*logits",
            "f32 [rows, context]",
            f"{QUERIES} x {CONTEXT} x 4 bytes",
            f"= {mib(LOGITS_BYTES)}",
            "(by a budget: some rows at a time)",
        ),
        arrow((839, 480), (839, 522)),
        note(851, 506, "read back"),
        box("work", 711, 522, 256, 48, "+topk", "the k best of each row"),
        arrow((839, 570), (839, 602)),
        box("cache", 711, 602, 256, 32, "positions, int32 [rows, k]"),
        f'<rect class="cache" x="711" y="662" width="{side}" height="{side}"/>',
        note(770, 674, "the candidates of those rows"),
        note(770, 692, f"by gluon: {mib(CANDIDATE_BYTES)}, drawn"),
        note(770, 710, "to the scale of the logits"),
    ]


def hard_rows() -> list[str]:
    """What rows do that were made to defeat a threshold."""
    rising = "Every key is a candidate: the best", f"are found anew after {FULL - MOST_KEPT} keys or more."
    equal = "Those above are counted; of the equal", "ones the first fill the rest of k."
    narrow = "Guesses interpolate; each fourth halves", "what is left: 128 guesses at most."
    columns = (
        (30, "scores that rise all the way", *rising),
        (345, "equal scores, mostly zeros", *equal),
        (665, "a narrow range, or far outliers", *narrow),
    )
    parts = [
        lane(
            14,
            744,
            972,
            92,
            "rows that defeat a threshold: the same steps on the device, and nothing is asked of the host",
        )
    ]
    for x, name, *lines in columns:
        parts.append(f'<text class="small" x="{x}" y="788" style="font-weight: bold">{name}</text>')
        parts += [note(x, 806 + 18 * number, line) for number, line in enumerate(lines)]
    return parts


def legend() -> list[str]:
    """What the colours mean."""
    kinds = ("cache", 30, "in the device's memory"), ("work", 230, "work"), ("data", 315, "on the chip")
    parts = []
    for kind, x, text in kinds:
        parts += [f'<rect class="{kind}" x="{x}" y="850" width="22" height="16"/>', note(x + 30, 863, text)]
    return [*parts, note(986, 863, f"{HEADS} heads, k {K}; a program has such candidates for {ROWS} rows", "end")]


def picture() -> str:
    """The picture, as SVG."""
    parts = [
        f'<rect class="paper" x="0" y="0" width="{WIDTH}" height="{HEIGHT}"/>',
        lane(14, 14, 664, 716, "index_select by gluon: one kernel, the keys tile by tile"),
        *tiles(),
        *on_the_chip(),
        *workspace(),
        *selection(),
        *apart(),
        *hard_rows(),
        *legend(),
    ]
    title = "Scores are offered to a bounded workspace of candidates and never written, beside logits that are"
    return framed(parts, WIDTH, HEIGHT, title, f"{STYLE}{MORE_STYLE}")


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(picture(), "utf-8")
    print(f"wrote {FILE}")
