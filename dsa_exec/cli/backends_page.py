"""The page `docs/reference/backends.md`: what runs where, and when that was last shown by a test run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dsa_exec.dispatch.registry import backends, op_names

HEAD = """# Backends

Generated from the backends that there are and from the records of conformance runs under `benchmarks/results/`; the
columns are machines. A cell has the tests that passed, those that failed, and the date. Under the interpreter of the
CPU the portable kernels run with every `make test`; kernels in Gluon do not, because the interpreter has no Gluon.

"""


def backends_page(records: Iterable[Path]) -> str:
    """The page.

    Args:
        records: JSON files that `pytest tests/conformance --record FILE` wrote.
    """
    read = [json.loads(path.read_text("utf-8")) for path in records]
    machines = [f"{it['arch']}: {it['device']}, torch {it['torch']}, triton {it['triton']}" for it in read]
    lines = [HEAD, f"| op | backend | {' | '.join(machines)} |\n", f"|---|---|{'---|' * len(machines)}\n"]
    for op in op_names():
        for backend in backends(op):
            cells = [_cell(it, op, backend) for it in read]
            lines.append(f"| `{op}` | {backend} | {' | '.join(cells)} |\n")
    lines += ["\n## What was refused there, and why\n\n", *_refusals(read)]
    return "".join(lines)


def _found(record: dict[str, Any], op: str, backend: str) -> dict[str, Any] | None:
    return next((it for it in record["backends"] if (it["op"], it["backend"]) == (op, backend)), None)


def _cell(record: dict[str, Any], op: str, backend: str) -> str:
    found = _found(record, op, backend)
    if found is None:
        return "not run"
    failed = f", {len(found['failed'])} failed" if found["failed"] else ""
    return f"{found['passed']} passed{failed}, {record['date']}"


def _refusals(read: list[dict[str, Any]]) -> list[str]:
    sentences: dict[str, None] = {}
    for record in read:
        for found in record["backends"]:
            for sentence in found["refused"]:
                sentences[f"- {record['arch']}: {sentence.rsplit(' (chosen by', 1)[0]}\n"] = None
    return list(sentences) or ["Nothing.\n"]
