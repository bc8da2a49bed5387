"""Joins the records of conformance runs of different ops on one machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def merged(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record of all.

    Args:
        records: what `pytest tests/conformance --record FILE` wrote, each of other ops.

    Raises:
        ValueError: there is none, two are of different machines or versions, or two have the same backend of an op.
    """
    if not records:
        raise ValueError("no record to join")
    first = records[0]
    for key in first.keys() - {"backends", "date"}:
        found = {str(record[key]) for record in records}
        if len(found) > 1:
            raise ValueError(f"records of different {key}: {', '.join(sorted(found))}")
    backends = [row for record in records for row in record["backends"]]
    named = [(row["op"], row["backend"]) for row in backends]
    for name in named:
        if named.count(name) > 1:
            raise ValueError(f"two records have the backend {name[1]} of {name[0]}")
    date = max(record["date"] for record in records)
    return {**first, "date": date, "backends": sorted(backends, key=lambda row: (row["op"], row["backend"]))}
