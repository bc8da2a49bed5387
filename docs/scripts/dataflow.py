"""Draws docs/pictures/dataflow.svg, the picture of the concepts page: `python docs/scripts/dataflow.py`."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

FILE = Path(__file__).parents[1] / "pictures" / "dataflow.svg"
WIDTH, HEIGHT = 1000, 640
STYLE = """
text { font: 15px sans-serif; fill: #1f2933 }
.name { font-weight: bold }
.op { font: bold 15px monospace; fill: #16425b }
.small { font-size: 13px; fill: #52606d }
.kind { font: bold 14px sans-serif; fill: #52606d }
rect { rx: 6px; stroke: #52606d; stroke-width: 1.3; fill: #ffffff }
.paper { fill: #f7f8fa; stroke: none }
.work { fill: #e3f0f7; stroke: #16425b }
.cache { fill: #fdf1dc; stroke: #a86a11 }
.data { fill: #ffffff }
.lane { fill: none; stroke: #9aa5b1; stroke-dasharray: 5 4 }
path { stroke: #323f4b; stroke-width: 1.6; fill: none; marker-end: url(#tip) }
"""


def box(kind: str, x: int, y: int, width: int, height: int, *lines: str) -> str:
    """A rectangle with centred lines: `*name` in bold, `+op` as code, others small."""
    first = y + height / 2 - (len(lines) - 1) * 9 + 5
    texts = ""
    for number, line in enumerate(lines):
        text_kind = {"*": "name", "+": "op"}.get(line[0], "small")
        place = f'x="{x + width / 2:g}" y="{first + 18 * number:g}" text-anchor="middle"'
        texts += f'<text class="{text_kind}" {place}>{escape(line.lstrip("*+"))}</text>'
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}"/>{texts}'


def lane(x: int, y: int, width: int, height: int, title: str) -> str:
    """A dashed frame with a title in its corner."""
    frame = f'<rect class="lane" x="{x}" y="{y}" width="{width}" height="{height}"/>'
    return f'{frame}<text class="kind" x="{x + 12}" y="{y + 21}">{escape(title)}</text>'


def arrow(*points: tuple[int, int]) -> str:
    """A line through points, with a tip at its end."""
    return f'<path d="M{" L".join(f"{x} {y}" for x, y in points)}"/>'


def note(x: int, y: int, text: str, anchor: str = "start") -> str:
    """A small line of text."""
    return f'<text class="small" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


def framed(parts: list[str], width: int, height: int, title: str, style: str) -> str:
    """A whole picture of its parts, with the tip that arrows end in."""
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<polygon points="0,0 8,4 0,8" fill="#323f4b"/></marker>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">'
    body = "\n".join(parts)
    return f"{head}\n<title>{title}</title>\n<style>{style}</style>\n<defs>{tip}</defs>\n{body}\n</svg>\n"


def picture() -> str:
    """The picture, as SVG."""
    parts = [
        f'<rect class="paper" x="0" y="0" width="{WIDTH}" height="{HEIGHT}"/>',
        box("data", 14, 272, 130, 96, "*hidden states", "of the rows", "[t, hidden]"),
        # The lightning indexer.
        lane(170, 20, 810, 300, "lightning indexer: which tokens?"),
        box("work", 190, 60, 170, 62, "+index_quant", "queries [t, 64, 128]", "to e4m3, head weights"),
        box("work", 190, 220, 170, 62, "+index_store", "one key [t, 128]", "a token"),
        box("cache", 410, 220, 190, 62, "*index-K cache", "132 bytes a token in fp8", "pages of 64"),
        '<rect class="lane" x="630" y="34" width="334" height="172"/>',
        '<text class="op" x="644" y="55">index_select</text>',
        note(644, 74, "the logits of one chunk of rows, under a budget"),
        box("work", 644, 86, 168, 106, "+mqa_logits", "prefill", "+paged_mqa_logits", "decode", "f32 [rows, keys]"),
        box("work", 842, 86, 110, 106, "+topk", "exact; lowest", "position wins", "a tie"),
        arrow((144, 300), (158, 300), (158, 91), (190, 91)),
        arrow((158, 251), (190, 251)),
        arrow((360, 251), (410, 251)),
        arrow((360, 91), (630, 91)),
        arrow((600, 251), (728, 251), (728, 206)),
        note(610, 270, "prefill: index_gather first"),
        arrow((812, 139), (842, 139)),
        # Attention.
        lane(170, 340, 810, 280, "multi-head latent attention: over those alone"),
        box("work", 190, 500, 170, 80, "+kv_store", "latent 512 and", "RoPE part 64", "of each token"),
        box("cache", 410, 500, 190, 80, "*MLA cache", "656 bytes a token in fp8", "one for all heads", "pages of 64"),
        box("data", 190, 386, 170, 62, "*queries", "absorbed, [t, h, 576]"),
        box(
            "work",
            656,
            380,
            220,
            92,
            "+sparse_mla_prefill",
            "+sparse_mla_decode",
            "softmax over k tokens",
            "[t, h, 512]",
        ),
        box("data", 701, 530, 130, 54, "*out", "[t, hidden]"),
        arrow((144, 340), (158, 340), (158, 417), (190, 417)),
        arrow((158, 417), (158, 540), (190, 540)),
        arrow((360, 540), (410, 540)),
        arrow((360, 417), (656, 417)),
        arrow((600, 540), (630, 540), (630, 447), (656, 447)),
        arrow((766, 472), (766, 530)),
        arrow((887, 192), (887, 330), (840, 330), (840, 380)),
        note(897, 262, "k positions"),
        note(897, 280, "or slots,"),
        note(897, 298, "int32 [t, k]"),
    ]
    title = "From hidden states through the indexer and top-k to attention over the selected tokens"
    return framed(parts, WIDTH, HEIGHT, title, STYLE)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(picture(), "utf-8")
    print(f"wrote {FILE}")
