"""What the tests that need a GPU showed: one row a test, read from the report that pytest writes."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path
from typing import Any


def device_tests(report: Path) -> list[dict[str, Any]]:
    """The rows of a record for a report.

    Args:
        report: a file in JUnit's format, of `pytest --junitxml`.

    Returns:
        For each test, in alphabetical order: its name, the parameters that passed, those that failed, and those that
        were skipped with the reason. The parameters of a test that has none are the empty text.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such report.
    """
    try:
        found = ElementTree.parse(report).iter("testcase")  # noqa: S314 (of a run of ours, just written)
    except ElementTree.ParseError as error:
        raise ValueError(f"{report} is no report of pytest: {error}") from error
    rows: dict[str, dict[str, Any]] = defaultdict(lambda: {"passed": [], "failed": [], "skipped": {}})
    for case in found:
        name, _, parameters = case.get("name", "").partition("[")
        row, parameters = rows[f"{case.get('classname')}.{name}"], parameters.removesuffix("]")
        skipped = case.find("skipped")
        if skipped is not None:
            row["skipped"][parameters] = skipped.get("message", "")
        elif case.find("failure") is not None or case.find("error") is not None:
            row["failed"].append(parameters)
        else:
            row["passed"].append(parameters)
    return [{"test": name, **rows[name]} for name in sorted(rows)]
