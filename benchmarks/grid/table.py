"""The grid as tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from benchmarks.grid.growth import BASE, Growth, growth
from benchmarks.grid.record import MOST_BEHIND, GridRecord, GridRow
from dsa_exec.cli.bench_record import Figure

HEAD = (
    "| rows | context | next_n | heads | ours, us | auto | best choice, us | behind | peer, us | ratio | of floor |",
    "|---:|---:|---:|---:|---:|---|---|---:|---|---:|---:|",
)


def page(record: GridRecord) -> str:
    """The whole record: what it comes to, what grows, and every row."""
    return "\n".join([*_about(record), *_summary(record.rows), *_growth(record.rows), *_tables(record.rows)])


def line(row: GridRow) -> str:
    """One row of the table."""
    sizes = [row.rows, row.context, row.next_n, row.heads]
    if row.ours is None:
        told = f"absent: {row.absent}" if row.wrong is None else f"WRONG: {row.wrong}"
        return _cells([*sizes, told, row.auto or "", "", "", "", "", ""])
    best = "" if row.best is None else f"{row.best} {row.choices[row.best].median_us:.1f}"
    behind = "" if row.behind is None else f"{row.behind:.0%}{' SLOW' if row.is_behind else ''}"
    peers = [f"{name} {_time(figure)}" for name, figure in row.peers.items()]
    absent = [f"{name}: {why}" for name, why in row.absent_peers.items()]
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    found = [_time(row.ours), row.auto, best, behind, "; ".join([*peers, *absent]), ratio, f"{row.share_of_floor:.0%}"]
    return _cells([*sizes, *found])


def _about(record: GridRecord) -> Iterator[str]:
    packages = ", ".join(f"{name} {version}" for name, version in record.vendors.items()) or "versions unknown"
    yield "# Grid"
    yield ""
    yield (
        f"{record.device}, {record.date}, torch {record.torch}, triton {record.triton}; vendors: {packages}. Medians "
        f"of at most {record.calls} calls with a cold L2, fewer of long ones; decode: replays of a CUDA graph of four "
        "calls, a fourth of it. Ours is what `auto` chooses, a single choice a backend that is named. MiB: the most of "
        "the device's memory that a call takes beyond its arguments, its result included."
    )
    yield ""


def _summary(rows: Sequence[GridRow]) -> Iterator[str]:
    yield "| op | sizes | measured | wrong | ratio to the best peer: least, median, most | auto slow |"
    yield "|---|---|---:|---:|---|---:|"
    for (op, phase), found in _grouped(rows):
        ratios = [row.ratio for row in found if row.ratio is not None]
        spread = f"{min(ratios):.2f}, {statistics.median(ratios):.2f}, {max(ratios):.2f}" if ratios else "no peer"
        measured, wrong = sum(row.ours is not None for row in found), sum(row.wrong is not None for row in found)
        slow = sum(row.is_behind for row in found)
        yield _cells([op, f"{phase}, {len(found)}", measured, wrong, spread, slow])
    yield ""
    yield f"Where `auto` is more than {MOST_BEHIND:.0%} slower than the best single choice:"
    yield ""
    told = [
        f"- {_named(row)}: `auto` took {row.auto}, {row.ours.median_us:.1f} us; {row.best} takes "
        f"{row.choices[row.best].median_us:.1f}"
        for row in rows
        if row.is_behind and row.ours is not None and row.best is not None
    ]
    yield from told or ["- nowhere"]
    yield ""
    broken = [f"- {_named(row)}: {name}: {why}" for row in rows for name, why in row.broken.items()]
    if broken:
        yield from ["Choices that failed, where they should refuse or run:", "", *broken, ""]


def _growth(rows: Sequence[GridRow]) -> Iterator[str]:
    found = growth(rows)
    contexts = sorted({context for it in found for context in it.relative})
    yield "## How the cost grows"
    yield ""
    yield (
        f"Prefill of the index: what a pair of a query and a key that it sees takes, over what it takes at {BASE}. "
        "Linear is within a tenth. Memory is constant within a MiB."
    )
    yield ""
    yield _cells(["rows", "heads", *contexts, "linear", "MiB", "constant"])
    yield "|" + "---:|" * (2 + len(contexts)) + "---|---:|---|"
    for it in found:
        pairs = [f"{it.relative[context]:.2f}" if context in it.relative else "" for context in contexts]
        yield _cells([it.rows, it.heads, *pairs, _yes(it.is_linear), _memory(it), _yes(it.is_flat)])
    yield ""


def _tables(rows: Sequence[GridRow]) -> Iterator[str]:
    for (op, phase), found in _grouped(rows):
        yield f"## {op}, {phase}"
        yield ""
        yield from HEAD
        yield from map(line, found)
        yield ""


def _grouped(rows: Iterable[GridRow]) -> Iterator[tuple[tuple[str, str], list[GridRow]]]:
    for key, found in groupby(rows, key=lambda row: (row.op, str(row.phase))):
        yield key, list(found)


def _named(row: GridRow) -> str:
    return f"{row.op}, {row.phase} {row.rows}x{row.context}, next_n {row.next_n}, {row.heads} heads"


def _memory(it: Growth) -> str:
    found = it.extra_mib.values()
    return f"{min(found):.1f} to {max(found):.1f}" if found else ""


def _yes(whether: bool) -> str:
    return "yes" if whether else "NO"


def _time(figure: Figure) -> str:
    return f"{figure.median_us:.1f}" + ("" if figure.extra_mib is None else f", {figure.extra_mib:.1f} MiB")


def _cells(values: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, values))} |"
