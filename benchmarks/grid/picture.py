"""The grid as a picture: our time over the best peer's as colours, and the share of the floor in the cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.grid.record import MOST_BEHIND, GridRecord, GridRow

COLUMNS = 3
LEAST, MOST = 0.5, 1.5
"""Ratios whose colours differ."""


class Panel(NamedTuple):
    """A heat map.

    Attributes:
        title: what it is of.
        across: what changes from left to right, in words.
        down: what changes from top to bottom.
        cells: rows of the record, by both.
    """

    title: str
    across: str
    down: str
    cells: dict[tuple[int, int], GridRow]


def panels(rows: Sequence[GridRow]) -> list[Panel]:
    """Rows by context for each number of heads and rows a request; attention by its heads. Prefill comes first."""
    found: dict[str, Panel] = {}
    for row in rows:
        if row.op == "index_select":
            more = "" if row.phase == "prefill" else f", next_n {row.next_n}"
            panel = Panel(f"{row.op}, {row.phase}, {row.heads} heads{more}", "context", _count(row), {})
            place = row.rows, row.context
        else:
            panel = Panel(f"{row.op}, context {row.context}", "heads", _count(row), {})
            place = row.rows, row.heads
        found.setdefault(panel.title, panel).cells[place] = row
    return sorted(found.values(), key=lambda it: _place(next(iter(it.cells.values()))))


def draw(record: GridRecord, path: Path) -> None:
    """Write the picture.

    Args:
        record: what was measured.
        path: where; its ending says the format.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    found = panels(record.rows)
    lines = max(-(-len(found) // COLUMNS), 1)
    figure = Figure(figsize=(4.6 * COLUMNS, 3.6 * lines + 0.8), layout="constrained")
    places = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    image = None
    for place, panel in zip(places, found, strict=False):
        image = _heat_map(place, panel)
    for place in places[len(found) :]:
        place.set_axis_off()
    if image is not None:
        figure.colorbar(image, ax=list(places), shrink=0.6, label="our time over the best peer's; gray: no peer")
    figure.suptitle(
        f"in each cell the ratio, and below it the share of the floor; *: auto is more than {MOST_BEHIND:.0%} slower "
        f"than a single choice\n"
        f"{record.device}, torch {record.torch}, triton {record.triton}, {record.date}",
        fontsize=10,
    )
    figure.savefig(path, dpi=110)


def _heat_map(axes: Any, panel: Panel) -> Any:
    down, across = (sorted({place[axis] for place in panel.cells}) for axis in (0, 1))
    shown = [[_ratio(panel.cells.get((row, column))) for column in across] for row in down]
    axes.set_facecolor("lightgray")
    image = axes.imshow(shown, cmap="RdYlGn_r", vmin=LEAST, vmax=MOST, aspect="auto")
    for y, row in enumerate(down):
        for x, column in enumerate(across):
            if (found := panel.cells.get((row, column))) is not None:
                axes.text(x, y, _text(found), ha="center", va="center", fontsize=6)
    axes.set_xticks(range(len(across)), map(_short(panel.across), across), fontsize=7)
    axes.set_yticks(range(len(down)), map(_short(panel.down), down), fontsize=7)
    axes.set_xlabel(panel.across, fontsize=7)
    axes.set_ylabel(panel.down, fontsize=7)
    axes.set_title(panel.title, fontsize=8)
    return image


def _place(row: GridRow) -> tuple[bool, bool]:
    return row.phase == "decode", row.op != "index_select"


def _count(row: GridRow) -> str:
    return "rows" if row.phase == "prefill" else "requests"


def _ratio(row: GridRow | None) -> float:
    return float("nan") if row is None or row.ratio is None else row.ratio


def _text(row: GridRow) -> str:
    if row.share_of_floor is None:
        return "wrong" if row.wrong is not None else "absent"
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}\n"
    return f"{ratio}{row.share_of_floor:.0%}{'*' if row.is_behind else ''}"


def _short(what: str) -> Callable[[int], str]:
    """Numbers of tokens and rows in K."""
    return lambda count: str(count) if what == "heads" or count < 1024 else f"{count // 1024}K"
