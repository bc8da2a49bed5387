"""One run as data: what was measured, on what, with which versions, and which bars were met."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.reads.bars import BARS, IMPORT, PLAIN
from benchmarks.reads.contender import Contender, Subject, contenders
from benchmarks.reads.follows import sees_change
from benchmarks.reads.imports import timed_imports
from benchmarks.reads.timing import Effort, Timed, timed_in_turn

LIBRARIES = (
    "pydantic", "pydantic-settings", "torch", "jax", "jaxlib", "oslo.config", "dynaconf", "traitlets",
)  # fmt: skip

State = Literal["measured", "not installed"]


@dataclass(frozen=True, slots=True)
class Row:
    """One contender's result. The figures are None where nothing was measured, and `why` says what is missing."""

    name: str
    does: str
    state: State
    why: str = ""
    median_ns: float | None = None
    iqr_ns: float | None = None
    ratio_to_plain: float | None = None
    sees_env_change: str | None = None


def measure(effort: Effort, import_runs: int) -> dict[str, Any]:
    """Time everything and return the record.

    Args:
        effort: of the reads and overrides.
        import_runs: processes that import dsa_config.
    """
    absent: list[Row] = []
    subjects: dict[str, Subject] = {}
    does: dict[str, str] = {}
    for contender in contenders():
        try:
            subjects[contender.name] = contender.build()
            does[contender.name] = contender.does
        except ModuleNotFoundError as error:
            absent.append(_absent(contender, error))
    seen = {name: sees_change(subject) for name, subject in subjects.items()}
    times = timed_in_turn(subjects, effort)
    pydantic, ours = timed_imports(import_runs)
    rows = [_measured(name, does[name], times[name], times[PLAIN], seen[name]) for name in times]
    rows += [
        Row(IMPORT, "import", "measured", median_ns=ours.median_ns, iqr_ns=ours.iqr_ns),
        Row("import pydantic_settings", "import", "measured", median_ns=pydantic.median_ns, iqr_ns=pydantic.iqr_ns),
    ]
    rows.sort(key=lambda row: (("read", "override", "import").index(row.does), row.median_ns))
    return {
        "benchmark": "config_reads",
        **about_this_run(),
        "rounds": effort.rounds,
        "slice_us": effort.slice_us,
        "local_names": effort.local_names,
        "import_runs": import_runs,
        "rows": [asdict(row) for row in (*rows, *absent)],
        "bars": bars_of({row.name: row.median_ns for row in rows if row.median_ns is not None}),
    }


def bars_of(medians: Mapping[str, float]) -> list[dict[str, Any]]:
    """Every bar and its verdict, as data.

    Args:
        medians: nanoseconds by row.
    """
    verdicts = [bar.judge(medians) for bar in BARS]
    return [{"bar": str(it.bar), "value": it.value, "met": it.met, "words": str(it)} for it in verdicts]


def about_this_run() -> dict[str, Any]:
    """When, on what processor, with which Python and libraries."""
    installed = {}
    for library in LIBRARIES:
        try:
            installed[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "versions": installed,
    }


def _absent(contender: Contender, error: ModuleNotFoundError) -> Row:
    if error.name is None or error.name.split(".")[0] != contender.library:
        raise error  # a fault of this benchmark, not a library that the user lacks
    return Row(contender.name, contender.does, "not installed", why=str(error))


def _measured(name: str, does: str, timed: Timed, plain: Timed, seen: str | None) -> Row:
    return Row(
        name,
        does,
        "measured",
        median_ns=round(timed.median_ns, 2),
        iqr_ns=round(timed.iqr_ns, 2),
        ratio_to_plain=round(timed.median_ns / plain.median_ns, 2),
        sees_env_change=seen,
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
