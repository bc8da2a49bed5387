"""A record as a table for a terminal, and as Markdown for the results folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table

HEADINGS = ("one boolean setting", "median", "spread", "x plain", "sees env change?")


def show(record: dict[str, Any], console: Console) -> None:
    """Print the table and the verdicts.

    Args:
        record: what `measure` returned.
        console: where to.
    """
    table = Table(title=title(record), caption=caption(record))
    for place, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if place in (1, 2, 3) else "left", overflow="fold")
    previous = None
    for row in record["rows"]:
        if previous is not None and previous != _section(row):
            table.add_section()
        previous = _section(row)
        table.add_row(*cells(row), style="bold" if row["name"].startswith("ours") else None)
    console.print(table)
    for bar in record["bars"]:
        console.print(bar["words"], style="green" if bar["met"] else "red", highlight=False, soft_wrap=True)


def markdown(record: dict[str, Any]) -> str:
    """The same as a Markdown document, ending in the bars that are missed and met.

    Args:
        record: what `measure` returned.
    """
    return "\n".join(_lines(record)) + "\n"


def title(record: dict[str, Any]) -> str:
    """What was measured on what."""
    return f"Config reads: {record['python']}, {record['cpu']}, {record['date']}"


def caption(record: dict[str, Any]) -> str:
    """How it was measured, and with which libraries."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return (
        f"All contenders in one process, in turn, medians of {record['rounds']} rounds; spread: interquartile range; "
        f"imports: medians of {record['import_runs']} processes. {versions}"
    )


def cells(row: dict[str, Any]) -> tuple[str, str, str, str, str]:
    """A row's cells, in the order of `HEADINGS`."""
    if row["state"] != "measured":
        return row["name"], row["state"], "", "", row["why"]
    ratio = row["ratio_to_plain"]
    return (
        row["name"],
        duration(row["median_ns"]),
        duration(row["iqr_ns"]),
        "" if ratio is None else f"{ratio:,.1f}",
        row["sees_env_change"] or "",
    )


def duration(ns: float) -> str:
    """Nanoseconds in words; milliseconds from one million on."""
    return f"{ns:,.1f} ns" if ns < 1_000_000 else f"{ns / 1_000_000:,.1f} ms"


def _section(row: dict[str, Any]) -> str:
    return "absent" if row["state"] != "measured" else str(row["does"])


def _lines(record: dict[str, Any]) -> Iterator[str]:
    yield f"# {title(record)}"
    yield ""
    yield caption(record)
    yield ""
    yield f"| {' | '.join(HEADINGS)} |"
    yield "|---|---:|---:|---:|---|"
    for row in record["rows"]:
        yield f"| {' | '.join(cells(row))} |"
    for heading, met in (("Bars missed", False), ("Bars met", True)):
        words = [bar["words"].partition(": ")[2] for bar in record["bars"] if bar["met"] is met]
        yield ""
        yield f"## {heading}"
        yield ""
        yield from (f"- {line}" for line in words or ["none"])
