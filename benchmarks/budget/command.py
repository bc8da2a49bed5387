"""`python -m benchmarks budget`: the command line."""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.budget.costs import costs, decision_of, queries_per_call
from benchmarks.budget.growth import LAST, growth
from benchmarks.budget.record import BudgetRecord
from benchmarks.budget.squeezes import squeezes
from benchmarks.budget.work import Prefill
from benchmarks.counts import count
from benchmarks.dispatch.measure import processor
from dsa_config import settings
from dsa_config.declarations.backends import backend_names
from dsa_exec.core.errors import DsaError
from dsa_exec.dispatch.trace import record_calls
from dsa_exec.ops.index_select import index_select

HEADS, K = 64, 2048
ON_A_GPU, ELSEWHERE = (8192, 131_072), (256, 4096)
"""Rows and keys of the selections."""

MIB = 2**20


def add_command(commands: Any) -> None:
    """Add the command to the others."""
    parser = commands.add_parser("budget", help="what the logits budget costs a call, and that memory keeps to it")
    parser.add_argument("--rounds", type=count, default=51, help="rounds of 200 calls of each (51)")
    parser.add_argument("--logits", metavar="BACKEND", default="auto", help="which backend scores (auto)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the record")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar is missed or a proof fails")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    known = ("auto", *backend_names("mqa_logits"))
    if options.logits not in known:
        print(f"benchmarks budget: --logits {options.logits}: there are {', '.join(known)}", file=sys.stderr)
        return 2
    try:
        with settings.override(mqa_logits_backend=options.logits), torch.no_grad():
            record = measure(options.rounds)
    except DsaError as error:
        print(f"benchmarks budget: {error}", file=sys.stderr)
        return 2
    print(text(record))
    if options.json is not None:
        try:
            options.json.write_text(record.model_dump_json(indent=1) + "\n")
        except OSError as error:
            print(f"benchmarks budget: {error}", file=sys.stderr)
            return 2
    return int(options.check and bool(record.failures))


def measure(rounds: int) -> BudgetRecord:
    """All of it on the GPU if there is one; the costs alone elsewhere."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    rows, keys = ON_A_GPU if on_gpu else ELSEWHERE
    # The context grows beyond what is squeezed.
    work = Prefill.make(rows, LAST if on_gpu else keys, HEADS, K, device)
    squeezed = Prefill(work.q, work.head_weights, work.keys[:keys], work.scales[:keys], work.out)
    return BudgetRecord(
        python=platform.python_version(),
        torch=torch.__version__,
        device=torch.cuda.get_device_name(device) if on_gpu else "none",
        processor=processor(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        rounds=rounds,
        logits=_scored_by(squeezed),
        rows=rows,
        keys=keys,
        heads=HEADS,
        k=K,
        queries_per_call=queries_per_call(squeezed, 4096),
        costs=costs(squeezed, rounds),
        squeezes=squeezes(squeezed) if on_gpu else [],
        growth=growth(work) if on_gpu else None,
    )


def _scored_by(work: Prefill) -> str:
    with record_calls() as trace:
        index_select(*work.arguments(4096), out=work.out)
    own = "its own memory" if decision_of(work).footprint.own_row_bytes else "our workspace"
    ((decision, _),) = [found for (op, _), found in trace.decisions.items() if op == "mqa_logits"]
    return f"{decision.backend.name} ({decision.why}), into {own}"


def text(record: BudgetRecord) -> str:
    """The record for people."""
    where = f"Python {record.python}, torch {record.torch}, {record.processor}, device {record.device}"
    lines = [
        f"{where}; logits by {record.logits}",
        "",
        "| part of a call | median, us | slowest tenth, us |",
        "|---|---|---|",
    ]
    for it in record.costs:
        bar = "" if it.bar_us is None else f" (bar {it.bar_us:g}{'' if it.met else ', missed'})"
        lines.append(f"| {it.what} | {it.median_us:.1f}{bar} | {it.p90_us:.1f} |")
    lines += ["", f"the driver was asked {record.queries_per_call} time(s) in a call of many chunks"]
    if record.squeezes:
        lines += [
            "",
            f"{record.rows} rows over {record.keys} keys, {record.heads} heads; memory in MiB",
            "",
            "| memory | left | budget | extra | kept | chunks | retries | ms | right |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
    for squeeze in record.squeezes:
        sizes = (squeeze.left_bytes, squeeze.budget_bytes, squeeze.extra_bytes, squeeze.workspace_bytes)
        numbers = " | ".join("-" if size is None else f"{size / MIB:.1f}" for size in sizes)
        right = "yes" if squeeze.equal and squeeze.within else "NO"
        counts = f"{squeeze.chunks} | {squeeze.retries} | {squeeze.milliseconds:.0f}"
        lines.append(f"| {squeeze.what} | {numbers} | {counts} | {right} |")
    if (grown := record.growth) is not None:
        steps = f"{len(grown.contexts)} contexts from {grown.contexts[0]} to {grown.contexts[-1]}"
        held = f"the allocator holds {grown.reserved_bytes[grown.warm_up - 1] / MIB:.0f} MiB"
        more = f"{grown.growth_bytes / MIB:.0f} MiB more at most after any later one"
        lines += ["", f"{steps}: {held} after {grown.warm_up} of them, and {more}"]
    return "\n".join([*lines, *(f"FAILED: {failure}" for failure in record.failures)])
