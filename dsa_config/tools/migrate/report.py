"""What a migration did or would do: a diff, sentences, JSON and an exit code."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from dsa_config.tools.migrate.migrate import BOM, FileReport

CLEAN, PENDING, FAILED = 0, 1, 2
"""Exit codes: nothing is left to do, changes are pending or something needs a hand, a file was refused."""


def diff(reports: Sequence[FileReport]) -> str:
    """The changes as one unified diff, as `patch` and `git apply` take it."""
    return "".join(line for report in reports if report.status == "changed" for line in _diff(report))


def sentences(reports: Sequence[FileReport], *, written: bool) -> list[str]:
    """One line for each thing that the diff does not say."""
    lines: list[str] = []
    for report in reports:
        if report.error is not None:
            lines.append(f"{report.path}: left as it is: {report.error}")
        if report.status != "refused":
            lines += [f"{report.path}:{it.line}: {it.name}: {it.why}" for it in report.by_hand]
        if written and report.backup is not None:
            names = "1 name" if len(report.changes) == 1 else f"{len(report.changes)} names"
            lines.append(f"{report.path}: {names} changed; the old file is {report.backup}")
    return lines


def document(reports: Sequence[FileReport], *, written: bool) -> dict[str, Any]:
    """The report as data."""
    files = [
        {
            "path": str(report.path),
            "kind": report.kind,
            "status": report.status,
            "changes": [asdict(it) for it in report.changes],
            "by_hand": [asdict(it) for it in report.by_hand],
            "error": report.error,
        }
        for report in reports
    ]
    return {"files": files, "written": written}


def exit_code(reports: Sequence[FileReport], *, written: bool) -> int:
    """0 when nothing is left to do, 1 when something is, 2 when a file was refused."""
    if any(report.status == "refused" for report in reports):
        return FAILED
    pending = any(report.by_hand or (report.status == "changed" and not written) for report in reports)
    return PENDING if pending else CLEAN


def _diff(report: FileReport) -> Iterator[str]:
    old, new = (re.findall(r"[^\n]*\n|[^\n]+\Z", content.removeprefix(BOM).decode()) for content in _both(report))
    path = str(report.path).lstrip("/")
    for line in difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _both(report: FileReport) -> tuple[bytes, bytes]:
    return report.old, report.new
