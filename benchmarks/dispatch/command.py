"""`python -m benchmarks dispatch`: the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks.counts import count
from benchmarks.dispatch.measure import measure
from benchmarks.dispatch.record import DispatchRecord

HEAD = (
    "| op | backend | tensors | selecting, us | slowest tenth, us | checking arguments, us |",
    "|---|---|---|---|---|---|",
)


def add_command(commands: Any) -> None:
    """Add the command to the others."""
    parser = commands.add_parser("dispatch", help="what choosing a backend costs on each call, and checking arguments")
    parser.add_argument("--rounds", type=count, default=51, help="rounds of 200 calls of each (51)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--check", action="store_true", help="exit 1 when the bar is missed")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    record = measure(options.rounds)
    print(table(record))
    if options.json is not None:
        try:
            options.json.write_text(record.model_dump_json(indent=1) + "\n")
        except OSError as error:
            print(f"benchmarks dispatch: {error}", file=sys.stderr)
            return 2
    return int(options.check and not all(row.met for row in record.rows))


def table(record: DispatchRecord) -> str:
    """The record as a table."""
    rows = [
        f"| `{row.op}` | {row.backend} | {row.tensors} | {row.select_us:.1f}{'' if row.met else ' (missed)'} "
        f"| {row.select_p90_us:.1f} | {row.checks_us:.1f} |"
        for row in record.rows
    ]
    where = f"Python {record.python}, torch {record.torch}, {record.processor}, device {record.device}"
    return "\n".join([f"{where}; the bar is {record.bar_us:g} us for selecting.", "", *HEAD, *rows])
