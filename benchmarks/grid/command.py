"""`python -m benchmarks grid`: the command line."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from benchmarks.counts import count
from benchmarks.grid.cases import cases
from benchmarks.grid.growth import growth
from benchmarks.grid.measure import measure
from benchmarks.grid.picture import draw
from benchmarks.grid.record import GridRecord, GridRow
from benchmarks.grid.table import HEAD, line, page
from benchmarks.ops.machine import machine
from benchmarks.ops.timing import Clock
from dsa_exec.core.hardware import total_memory_bytes

OPS = ("index_select", "sparse_mla_prefill", "sparse_mla_decode")
SAVED_EVERY_S = 15.0
"""What was measured is written so often, so that a run that is ended from outside leaves a record."""


def add_command(commands: Any) -> None:
    """Add the command to the others."""
    grid = commands.add_parser("grid", help="the ops over all sizes: auto beside every backend, vendors and the floor")
    grid.add_argument("--op", action="append", choices=OPS, help="only this op; may be given several times")
    grid.add_argument("--phase", choices=("prefill", "decode"), help="only this phase")
    grid.add_argument("--calls", type=count, default=12, help="timed calls of each at most (12), fewer of long ones")
    grid.add_argument(
        "--without", action="append", default=[], metavar="BACKEND", help="no choice that names it; may be given again"
    )
    grid.add_argument("--seconds", type=_seconds, help="measure for so long; what is left is recorded as not measured")
    grid.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    grid.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    grid.add_argument("--plot", type=Path, metavar="FILE", help="draw heat maps (needs matplotlib)")
    grid.add_argument("--read", type=Path, metavar="FILE", help="show a record in the place of measuring")
    grid.add_argument("--check", action="store_true", help="exit 1 where auto is slow, or where cost is not linear")
    grid.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        record = _measured(options) if options.read is None else _read(options.read)
        if options.json is not None:
            _write(record, options.json)
        if options.markdown is not None:
            options.markdown.write_text(page(record))
        if options.plot is not None:
            draw(record, options.plot)
    except (OSError, ValidationError, ModuleNotFoundError, LookupError) as error:
        print(f"benchmarks grid: {error}", file=sys.stderr)
        return 2
    return 1 if _is_bad(record, checked=options.check) else 0


def _is_bad(record: GridRecord, *, checked: bool) -> bool:
    """Whether a result is wrong or a choice is broken, or under --check a bar is missed."""
    if any(row.wrong is not None or row.broken for row in record.rows):
        return True
    missed = any(row.is_behind for row in record.rows)
    return checked and (missed or not all(it.is_linear and it.is_flat for it in growth(record.rows)))


def _read(path: Path) -> GridRecord:
    return GridRecord.model_validate_json(path.read_text())


def _write(record: GridRecord, path: Path) -> None:
    path.write_text(record.model_dump_json(indent=1, exclude_defaults=True) + "\n")


def _measured(options: argparse.Namespace) -> GridRecord:
    if not torch.cuda.is_available():
        raise LookupError("no CUDA device, and on the CPU there is nothing to compare with; --read shows a record")
    total = total_memory_bytes(torch.device("cuda", torch.cuda.current_device()))
    todo = [
        case
        for case in cases(total)
        if (not options.op or case.work.op in options.op) and options.phase in (None, case.phase)
    ]
    about, rows, saved = machine(), list[GridRow](), time.monotonic()

    def record() -> GridRecord:
        return GridRecord(**about, calls=options.calls, seconds=options.seconds, rows=rows)

    print("\n".join(HEAD), flush=True)
    try:
        for row in measure(todo, Clock(options.calls), options.calls, options.seconds, options.without):
            rows.append(row)
            print(line(row), flush=True)
            if options.json is not None and time.monotonic() - saved > SAVED_EVERY_S:
                _write(record(), options.json)
                saved = time.monotonic()
    except KeyboardInterrupt:
        print("interrupted: what was measured until now is the record", file=sys.stderr)
    return record()


def _seconds(text: str) -> float:
    """A number above zero."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a number of seconds above 0")
    return value
