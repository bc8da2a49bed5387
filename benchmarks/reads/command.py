"""The command line: measure, print, write, judge."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from rich.console import Console

from benchmarks.reads.record import measure
from benchmarks.reads.report import markdown, show
from benchmarks.reads.timing import Effort

FULL, FULL_IMPORTS = Effort(rounds=101, slice_us=500), 21
QUICK, QUICK_IMPORTS = Effort(rounds=7, slice_us=100), 3


def main() -> int:
    """Run the benchmark; 1 if a bar is missed and `--check` was given."""
    parser = argparse.ArgumentParser(description="What reading one boolean setting costs, ours beside others.")
    parser.add_argument("--quick", action="store_true", help="a fraction of the rounds, to see that everything runs")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    parser.add_argument("--local-names", action="store_true", help="read local variables, and subtract an empty loop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    asked = parser.parse_args()
    effort, import_runs = (QUICK, QUICK_IMPORTS) if asked.quick else (FULL, FULL_IMPORTS)
    record = measure(dataclasses.replace(effort, local_names=asked.local_names), import_runs)
    console = Console()
    show(record, console if console.is_terminal else Console(width=120))
    if asked.json is not None:
        asked.json.write_text(json.dumps(record, indent=2) + "\n")
    if asked.markdown is not None:
        asked.markdown.write_text(markdown(record))
    return int(asked.check and not all(bar["met"] for bar in record["bars"]))
