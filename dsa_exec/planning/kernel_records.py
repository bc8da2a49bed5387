"""From the committed records of benchmarks to what a sweep needs of them, which an installed package has with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dsa_exec.planning.kernel_fit import Measured, fits_of
from dsa_exec.planning.kernel_terms import SELECTED, Work

RECORDS = "benchmarks/results/h100"
RUNS = f"{RECORDS}/two-gpus.json"
"""Runs on two GPUs, against which a sweep's model is judged. It need not be there."""

_TOPK = re.compile(r"\d+ of (\d+)x(\d+), normal")
_PREFILL = re.compile(r"(\d+)x\d+, (?P<heads>\d+) heads")
_DECODE = re.compile(r"(\d+) requests of \d+, (?P<heads>\d+) heads")
_NOTHING = re.compile(r"(?!)")


def kernel_times_text(root: Path) -> str:
    """The content of `kernel_times.json`, from the records of a working tree.

    Args:
        root: the folder that has `benchmarks/results`.
    """
    grid, ops = (json.loads((root / RECORDS / name).read_text("utf-8")) for name in ("grid.json", "ops.json"))
    measured = [*_of_grid(grid), *_of_ops(ops, _backends(grid))]
    head = {
        "from": [f"{RECORDS}/grid.json", f"{RECORDS}/ops.json"],
        "device": grid["device"],
        "date": grid["date"],
        "torch": grid["torch"],
        "fits_us": fits_of(measured),
    }
    rows = [json.dumps([it.op, *it.work, round(it.us, 1)]) for it in measured]
    runs = [json.dumps(row) for row in _runs(root / RUNS)]
    return f'{json.dumps(head, indent=2)[:-2]},\n  "measured": {_lines(rows)},\n  "runs": {_lines(runs)}\n}}\n'


def _lines(rows: Sequence[str]) -> str:
    """A list with a row a line."""
    return "[\n    " + ",\n    ".join(rows) + "\n  ]" if rows else "[]"


def _runs(record: Path) -> list[dict[str, Any]]:
    if not record.exists():
        return []
    rows = json.loads(record.read_text("utf-8"))["rows"]
    return [
        {
            "work": it["work"],
            "way": it["way"] if it["gpus"] > 1 else "",
            "gpus": it["gpus"],
            "us": round(it["us"]["median_us"], 1),
        }
        for it in rows
        if it["us"] is not None
    ]


def _of_grid(record: Mapping[str, Any]) -> Iterator[Measured]:
    for row in record["rows"]:
        if "ours" not in row or row.get("next_n", 1) > 1:  # not measured, or speculation, which a sweep has not
            continue
        op, keys = row["op"], row["context"]
        if op == "index_select":
            op = f"{op} {row['phase']}"
        elif op.startswith("sparse_mla"):
            keys = SELECTED
        yield Measured(op, Work(row["rows"], keys, row["heads"]), row["ours"]["median_us"])


def _backends(grid: Mapping[str, Any]) -> dict[tuple[str, int, int], str]:
    """What does attention by itself, by op, rows and heads."""
    rows = [row for row in grid["rows"] if row["op"].startswith("sparse_mla") and "auto" in row]
    return {(row["op"], row["rows"], row["heads"]): row["auto"] for row in rows}


def _of_ops(record: Mapping[str, Any], backends: Mapping[tuple[str, int, int], str]) -> Iterator[Measured]:
    """Top-k, which the grid has not; and attention once more, where the same backend does it as in the grid."""
    for row in record["rows"]:
        op, work = row["op"], row["work"]
        if op == "topk" and (found := _TOPK.fullmatch(work)):
            yield Measured(op, Work(int(found[1]), int(found[2]), 0), row["ours"]["median_us"])
        elif found := {"sparse_mla_prefill": _PREFILL, "sparse_mla_decode": _DECODE}.get(op, _NOTHING).fullmatch(work):
            rows, heads = int(found[1]), int(found["heads"])
            if row["why"].split(" ")[0] == backends.get((op, rows, heads)):
                yield Measured(op, Work(rows, SELECTED, heads), row["ours"]["median_us"])
