"""Draws docs/pictures/key-split.svg, the picture of keys shared out: `python docs/scripts/key_split.py`."""

from __future__ import annotations

from pathlib import Path

from dataflow import STYLE, arrow, box, framed, lane, note

FILE = Path(__file__).parents[1] / "pictures" / "key-split.svg"
WIDTH, HEIGHT = 1000, 466
RANKS, TOKENS, PAGE = 2, 48, 4
CELL, LEFT = 16, 190
COLOURS = ".rank0 { fill: #e3f0f7; stroke-width: 0.6; rx: 0 }\n.rank1 { fill: #fdf1dc; stroke-width: 0.6; rx: 0 }\n"


def strip(y: int, title: str, block: int) -> str:
    """The tokens of a request, coloured by the rank that has each."""
    size = f'y="{y}" width="{CELL}" height="22"'
    cells = "".join(
        f'<rect class="rank{position // block % RANKS}" x="{LEFT + CELL * position}" {size}/>'
        for position in range(TOKENS)
    )
    return note(LEFT - 12, y + 16, title, "end") + cells


def rank(nth: int, y: int) -> list[str]:
    """What a rank does with its own keys and latents, left to right."""
    middle = y + 75
    return [
        lane(20, y, 960, 130, f"rank {nth}"),
        f'<rect class="rank{nth}" x="34" y="{y + 42}" width="118" height="66"/>',
        box("none", 34, y + 42, 118, 66, "*its own", "index keys", "and latents"),
        box("work", 190, y + 42, 150, 66, "*indexer", "scores its own keys,", "picks the k best"),
        box("work", 470, y + 42, 130, 66, "+topk_merge", "which of its own", "stay"),
        box("work", 632, y + 42, 136, 66, "+sparse_mla_*", "over these alone:", "out and lse"),
        box("work", 850, y + 42, 116, 66, "+attention", "+_merge", "all keys"),
        arrow((152, middle), (190, middle)),
        arrow((340, middle), (470, middle)),
        arrow((600, middle), (632, middle)),
        arrow((768, middle), (850, middle)),
    ]


def picture() -> str:
    """The picture, as SVG."""
    parts = [
        f'<rect class="paper" x="0" y="0" width="{WIDTH}" height="{HEIGHT}"/>',
        note(LEFT, 22, "the tokens of one request, by position; the colour says which rank has a token"),
        strip(32, "contiguous", TOKENS // RANKS),
        strip(66, "interleaved, by pages", PAGE),
        *rank(0, 112),
        *rank(1, 316),
        # What goes from each rank to the other.
        arrow((360, 187), (436, 371), (470, 371)),
        arrow((360, 391), (436, 207), (470, 207)),
        note(436, 276, "candidates: score and position"),
        note(436, 294, "of its k best, 8 bytes each"),
        arrow((784, 187), (824, 371), (850, 371)),
        arrow((784, 391), (824, 207), (850, 207)),
        note(836, 276, "out and log-sum-exp"),
        note(836, 294, "of each row and head"),
    ]
    title = "Keys of a request on two ranks: each selects from its own, and merges tell what one rank would have found"
    style = f"{STYLE}{COLOURS}.none {{ fill: none; stroke: none }}\n"
    return framed(parts, WIDTH, HEIGHT, title, style)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(picture(), "utf-8")
    print(f"wrote {FILE}")
