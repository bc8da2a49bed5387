"""`python -m benchmarks prove`: the command line."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.prove.device_tests import device_tests
from benchmarks.prove.merge import merged
from dsa_exec.dispatch.registry import op_names

ROOT = Path(__file__).parents[2]
OTHERS = "others"
"""Tests of the suite that are not of one op."""

DEVICE = "on the device"
"""Tests of tests/exec that need a GPU, or run on one where there is one."""

ALONE = "alone on the device"
"""Those of them that fill its memory: nothing else may run beside them."""

TOGETHER: tuple[tuple[str, ...], ...] = (
    ("topk",),
    ("mqa_logits",),
    ("paged_mqa_logits",),
    ("sparse_mla_decode",),
    ("sparse_mla_prefill",),
    ("index_quant", "index_store", "index_gather"),
    ("kv_store", "kv_gather", "step_metadata", "index_select"),
    ("attention_merge", "topk_candidates", "topk_merge"),
    (DEVICE,),
)
"""Ops whose tests run one after the other, so that the groups take about as long as each other."""

_PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
SANITIZER = ("compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9", "--launch-timeout", "600")


def add_command(commands: Any) -> None:
    """Add the command to the others."""
    parser = commands.add_parser("prove", help="run the conformance suite on this GPU and record what passed")
    parser.add_argument("--record", type=Path, metavar="FILE", help="write which backends passed which cases")
    parser.add_argument("--op", action="append", help="only this op; may be given several times")
    parser.add_argument("-k", metavar="EXPRESSION", dest="only", help="only tests that match, as in pytest")
    parser.add_argument(
        "--jobs", type=int, choices=range(1, 65), metavar="N", default=8, help="groups of ops at a time (8)"
    )
    parser.add_argument("--sanitize", action="store_true", help="under compute-sanitizer's memcheck, each case once")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the output of the test runs")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    known = op_names()
    for op in options.op or ():
        if op not in known:
            print(f"benchmarks prove: --op {op}: there are {', '.join(known)}", file=sys.stderr)
            return 2
    with contextlib.ExitStack() as stack:
        folder = options.logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        every = (*known, OTHERS) if options.sanitize else (*known, OTHERS, DEVICE, ALONE)
        groups = list(groups_of(options.op or every))
        records = [folder / f"{number}.json" for number in range(len(groups))]
        commands = [
            command_of(group, record, options.only, sanitize=options.sanitize)
            for group, record in zip(groups, records, strict=True)
        ]
        failed = _in_parallel(groups, commands, options.jobs, folder)
        if options.record is None or options.sanitize:
            return int(failed)
        try:
            joined = _joined(groups, records)
            options.record.write_text(json.dumps(joined, indent=1) + "\n", "utf-8")
        except (OSError, ValueError) as error:
            print(f"benchmarks prove: no record: {error}", file=sys.stderr)
            return 2
    return int(failed)


def _joined(groups: Sequence[tuple[str, ...]], records: Sequence[Path]) -> dict[str, Any]:
    of_ops = [path for group, path in zip(groups, records, strict=True) if group not in ((DEVICE,), (ALONE,))]
    joined = merged([json.loads(path.read_text("utf-8")) for path in of_ops])
    reports = [path for group, path in zip(groups, records, strict=True) if group in ((DEVICE,), (ALONE,))]
    if reports:
        joined["device_tests"] = [row for report in reports for row in device_tests(report)]
    return joined


def groups_of(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The ops to be proven, in groups; those that no group has are one more. What must run alone comes last."""
    grouped = [tuple(op for op in group if op in names) for group in TOGETHER]
    rest = tuple(op for op in names if op != ALONE and not any(op in group for group in TOGETHER))
    yield from (group for group in (*grouped, rest, (ALONE,) if ALONE in names else ()) if group)


def _in_parallel(groups: Sequence[tuple[str, ...]], commands: Sequence[Sequence[str]], jobs: int, folder: Path) -> bool:
    """Run a command for each group, so many at a time, and tell how each ended; whether one failed."""
    failed = False
    together = [command for group, command in zip(groups, commands, strict=True) if group != (ALONE,)]
    last = [command for group, command in zip(groups, commands, strict=True) if group == (ALONE,)]
    with ThreadPoolExecutor(jobs) as pool:
        results = itertools.chain(pool.map(_output_of, together), map(_output_of, last))
        for number, (group, done) in enumerate(zip(groups, results, strict=True)):
            (folder / f"{number}.log").write_text(done.stdout, "utf-8")
            failed |= done.returncode != 0
            told = [line for line in done.stdout.splitlines() if line.strip() and not line.startswith("SKIPPED")]
            for line in told if done.returncode else told[-1:]:
                print(f"{', '.join(group)}: {line}", flush=True)
    return failed


def _output_of(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def command_of(group: Sequence[str], record: Path, only: str | None, *, sanitize: bool) -> list[str]:
    """The command that proves a group of ops; for the tests on the device, `record` is in JUnit's format."""
    if tuple(group) in ((DEVICE,), (ALONE,)):
        marked = "whole_device" if tuple(group) == (ALONE,) else "(gpu or device) and not whole_device"
        tests = ["tests/exec", "-m", marked, "--junitxml", str(record)]
        return [*_PYTEST, *tests, *(("-k", only) if only is not None else ())]
    tests = ["tests/conformance/test_backends.py::test_agrees_with_the_oracle"] if sanitize else ["tests/conformance"]
    command = [*_PYTEST, *tests, "--ops", ",".join(group)]
    command += ["--record", str(record)]
    if only is not None:
        command += ["-k", only]
    return [*SANITIZER, *command] if sanitize else command
