"""`torchrun --nproc-per-node 2 -m benchmarks ranks`: the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from pydantic import ValidationError

from benchmarks.counts import count
from benchmarks.ops.machine import machine
from benchmarks.ranks.record import RanksRecord, RanksRow
from benchmarks.ranks.table import HEAD, line, page
from dsa_config.tools.c_environment import python_environment

BACKEND = "cpu:gloo,cuda:nccl"
LAUNCH = "torchrun --nproc-per-node 2 -m benchmarks ranks"


def add_command(commands: Any) -> None:
    """Add the command to the others."""
    ranks = commands.add_parser("ranks", help="steps shared out among GPUs beside one GPU; started by torchrun")
    ranks.add_argument("--calls", type=count, default=20, help="timed calls of each (20)")
    ranks.add_argument("--inputs", type=count, default=3, help="inputs that rotate (3)")
    ranks.add_argument("--work", action="append", default=[], metavar="TEXT", help="only work with this in its name")
    ranks.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    ranks.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    ranks.add_argument("--read", type=Path, metavar="FILE", help="show a record in the place of measuring")
    ranks.add_argument("--check", action="store_true", help="exit 1 where a bar is missed")
    ranks.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    try:
        record = _measured(options) if options.read is None else _read(options.read)
        if record is None:  # of another rank than the first
            return 0
        if options.json is not None:
            options.json.write_text(record.model_dump_json(indent=1) + "\n")
        if options.markdown is not None:
            options.markdown.write_text(page(record))
    except (OSError, ValidationError, LookupError) as error:
        print(f"benchmarks ranks: {error}", file=sys.stderr)
        return 2
    if options.check and all(row.least_speedup is None for row in record.rows):
        print("benchmarks ranks: --check: no row of this record has a bar", file=sys.stderr)
        return 2
    is_wrong = any(row.wrong is not None for row in record.rows)
    return int(is_wrong or (options.check and any(row.is_missed for row in record.rows)))


def _read(file: Path) -> RanksRecord:
    record = RanksRecord.model_validate_json(file.read_text())
    print(page(record))
    return record


def _measured(options: argparse.Namespace) -> RanksRecord | None:
    if not torch.cuda.is_available():
        raise LookupError("there is no CUDA device; --read FILE shows a record")
    told = python_environment()
    if "LOCAL_RANK" not in told:
        raise LookupError(f"each GPU is a process of its own: start it by {LAUNCH}")
    from benchmarks.ranks import decode_work, prefill_work
    from benchmarks.ranks.measure import measure
    from benchmarks.ranks.timing import RanksClock

    device = torch.device("cuda", int(told["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group(BACKEND, device_id=device)
    is_first = dist.get_rank() == 0
    try:
        chosen = [
            work
            for work in (*prefill_work.works(), *decode_work.works())
            if not options.work or any(text in work.name for text in options.work)
        ]
        if not chosen:
            raise LookupError(f"no work has {' or '.join(options.work)} in its name")
        if is_first:
            print("\n".join(HEAD), flush=True)
        rows: list[RanksRow] = []
        for work in chosen:
            for row in measure(work, RanksClock(options.calls), inputs=options.inputs):
                rows.append(row)
                if is_first:
                    print(line(row), flush=True)
        if not is_first:
            return None
        about = {"gpus": dist.get_world_size(), "backend": BACKEND, "calls": options.calls}
        return RanksRecord(**machine(), **about, rows=tuple(rows))
    finally:
        dist.destroy_process_group()
