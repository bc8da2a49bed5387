"""`python -m benchmarks ops`: the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from benchmarks.counts import count
from benchmarks.ops.measure import measure, works
from benchmarks.ops.picture import draw
from benchmarks.ops.table import HEAD, line, page
from dsa_exec.cli.bench_record import BenchRecord


def _run(options: argparse.Namespace) -> int:
    try:
        record = _record(options)
        if options.json is not None:
            options.json.write_text(record.model_dump_json(indent=1) + "\n")
        if options.markdown is not None:
            options.markdown.write_text(page(record))
        if options.plot is not None:
            draw(record, options.plot)
    except (OSError, ValidationError, ModuleNotFoundError, LookupError) as error:
        print(f"benchmarks ops: {error}", file=sys.stderr)
        return 2
    wrong = any(row.wrong is not None for row in record.rows)
    missed = options.check and any(row.bar_met is False for row in record.rows)
    return 1 if wrong or missed else 0


def _record(options: argparse.Namespace) -> BenchRecord:
    if options.read is not None:
        return BenchRecord.model_validate_json(options.read.read_text())
    chosen = [work for work in works() if not options.op or work.op in options.op]
    known = sorted({work.op for work in works()})
    for op in options.op or ():
        if op not in known:
            raise LookupError(f"--op {op}: there is work for {', '.join(known)}")
    if not torch.cuda.is_available():
        raise LookupError("no CUDA device, and on the CPU there is nothing to compare with; --read shows a record")
    print("\n".join(HEAD), flush=True)
    return measure(chosen, options.calls, options.against, lambda row: print(line(row), flush=True))


def add_command(commands: Any) -> None:
    """Add the command to the others."""
    ops = commands.add_parser("ops", help="check the ops on a GPU, time them, and compare them with the vendors'")
    ops.add_argument("--op", action="append", help="only this op; may be given several times")
    ops.add_argument("--against", metavar="VENDOR", help="only vendors whose name contains this")
    ops.add_argument("--calls", type=count, default=20, help="timed calls of each (20)")
    ops.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    ops.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    ops.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios (needs matplotlib)")
    ops.add_argument("--read", type=Path, metavar="FILE", help="show a record in the place of measuring")
    ops.add_argument("--check", action="store_true", help="exit 1 when a bar is missed")
    ops.set_defaults(run=_run)
