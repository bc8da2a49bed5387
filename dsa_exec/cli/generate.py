"""Writes what is generated from the code: `python -m dsa_exec.cli.generate`. CI fails where a file is not current."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsa_config import DSASettings
from dsa_config.flags.schema import flags_schema
from dsa_config.tools.export_docs import settings_page
from dsa_config.tools.export_schema import DIALECT, settings_schema
from dsa_exec.cli.backends_page import backends_page
from dsa_exec.cli.bench.report import ModelBenchReport
from dsa_exec.cli.bench_record import BenchRecord
from dsa_exec.cli.doctor.report import DoctorReport
from dsa_exec.cli.plan.report import PlanReport
from dsa_exec.cli.plan.sweep_report import SweepReport
from dsa_exec.cli.report import PromptResult, RunReport
from dsa_exec.planning.kernel_records import kernel_times_text

ROOT = Path(__file__).parents[2]


def generated() -> dict[Path, str]:
    """Every generated file of the project, and what it must hold."""
    schemas: dict[str, dict[str, Any]] = {
        "settings.schema.json": settings_schema(DSASettings),
        "flags.schema.json": flags_schema(DSASettings),
        "bench.schema.json": {"$schema": DIALECT, **BenchRecord.model_json_schema(mode="serialization")},
        "doctor.schema.json": {"$schema": DIALECT, **DoctorReport.model_json_schema(mode="serialization")},
        "model_bench.schema.json": {"$schema": DIALECT, **ModelBenchReport.model_json_schema(mode="serialization")},
        "plan.schema.json": {"$schema": DIALECT, **PlanReport.model_json_schema(mode="serialization")},
        "plan_sweep.schema.json": {"$schema": DIALECT, **SweepReport.model_json_schema(mode="serialization")},
        "run.schema.json": {"$schema": DIALECT, **RunReport.model_json_schema(mode="serialization")},
        "run_result.schema.json": {"$schema": DIALECT, **PromptResult.model_json_schema(mode="serialization")},
    }
    written = {ROOT / "schemas" / name: json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}
    records = sorted((ROOT / "benchmarks" / "results").glob("*/conformance.json"))
    pages = {"settings.md": settings_page(DSASettings), "backends.md": backends_page(records)}
    times = {ROOT / "dsa_exec" / "planning" / "kernel_times.json": kernel_times_text(ROOT)}
    return {**written, **times, **{ROOT / "docs" / "reference" / name: text for name, text in pages.items()}}


def main() -> None:
    """Write every file that is not current."""
    for path, text in generated().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
        else:
            print(f"{path.relative_to(ROOT)} is current")


if __name__ == "__main__":
    main()
