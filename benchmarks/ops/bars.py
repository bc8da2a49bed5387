"""Judges what was measured by what was agreed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.ops.work import Bar
from dsa_exec.cli.bench_record import Row


def judged(bar: Bar | None, row: Row, earlier: Sequence[Row] = ()) -> dict[str, Any]:
    """The fields of a row about its bar: the bar in words, and whether it is met; None if there is nothing to compare.

    A bar is missed where one of its parts is, and where ours did not run.

    Args:
        bar: what was agreed, or None.
        row: what was measured.
        earlier: what was measured before, of the same run.
    """
    if bar is None:
        return {}
    words, met = zip(*_parts(bar, row, earlier), strict=True)
    verdict = False if False in met else None if None in met else True
    return {"bar": "at most " + " and ".join(words), "bar_met": verdict}


def _parts(bar: Bar, row: Row, earlier: Sequence[Row]) -> list[tuple[str, bool | None]]:
    ours, parts = row.ours, list[tuple[str, bool | None]]()
    if bar.us is not None:
        parts.append((f"{bar.us:g} us", ours is not None and ours.median_us <= bar.us))
    if bar.ratio is not None:
        met = False if ours is None else None if row.ratio is None else row.ratio <= bar.ratio
        parts.append((f"{bar.ratio:g} x the vendor", met))
    if bar.of_ours is not None:
        most, name = bar.of_ours
        found = [it.ours.median_us for it in earlier if (it.op, it.work) == (row.op, name) and it.ours is not None]
        met = False if ours is None else None if not found else ours.median_us <= most * found[0]
        parts.append((f"{most:g} x ours of {name}", met))
    if bar.extra_mib is not None:
        extra = None if ours is None else ours.extra_mib
        parts.append((f"{bar.extra_mib:g} MiB extra", extra is not None and extra <= bar.extra_mib))
    return parts
