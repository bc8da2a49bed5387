"""The page `docs/reference/backends.md`: what runs where, and when that was last shown by a test run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dsa_exec.dispatch.registry import backends, op_names

HEAD = """# Backends

Generated from the backends that there are and from the records of conformance runs under `benchmarks/results/`; the
columns are machines. A cell has the tests that passed, those that failed, and the date; "refused" means that the
backend takes no call there. Under the interpreter of the
CPU the portable kernels run with every `make test`; kernels in Gluon do not, because the interpreter has no Gluon.

"""


def backends_page(records: Iterable[Path]) -> str:
    """The page.

    Args:
        records: JSON files that `python -m benchmarks prove --record FILE` wrote.
    """
    read = [json.loads(path.read_text("utf-8")) for path in records]
    machines = [f"{it['arch']}: {it['device']}, torch {it['torch']}, triton {it['triton']}" for it in read]
    lines = [HEAD, f"| op | backend | {' | '.join(machines)} |\n", f"|---|---|{'---|' * len(machines)}\n"]
    for op in op_names():
        for backend in backends(op):
            cells = [_cell(it, op, backend) for it in read]
            lines.append(f"| `{op}` | {backend} | {' | '.join(cells)} |\n")
    for record, machine in zip(read, machines, strict=True):
        lines += _device_tests(record, machine)
    lines += ["\n## What was refused there, and why\n\n", *_refusals(read)]
    return "".join(lines)


def _found(record: dict[str, Any], op: str, backend: str) -> dict[str, Any] | None:
    return next((it for it in record["backends"] if (it["op"], it["backend"]) == (op, backend)), None)


def _cell(record: dict[str, Any], op: str, backend: str) -> str:
    found = _found(record, op, backend)
    if found is None:
        return "not run"
    if found["refused"] and not found["passed"] and not found["failed"]:
        return f"refused, {record['date']}"
    failed = f", {len(found['failed'])} failed" if found["failed"] else ""
    return f"{found['passed']} passed{failed}, {record['date']}"


def _device_tests(record: dict[str, Any], machine: str) -> list[str]:
    """What was shown beside the contracts: a line a test, with how many of its parameters passed."""
    if not (rows := record.get("device_tests")):
        return []
    lines = [f"\n## Tests on the device, {machine}\n\n", "| test | passed | failed | skipped |\n|---|---:|---:|---:|\n"]
    for row in rows:
        name = row["test"].removeprefix("tests.exec.")
        lines.append(f"| `{name}` | {len(row['passed'])} | {len(row['failed'])} | {len(row['skipped'])} |\n")
    return lines


def _refusals(read: list[dict[str, Any]]) -> list[str]:
    sentences: dict[str, None] = {}
    for record in read:
        for found in record["backends"]:
            for sentence in found["refused"]:
                sentences[f"- {record['arch']}: {sentence.rsplit(' (chosen by', 1)[0]}\n"] = None
    return list(sentences) or ["Nothing.\n"]
