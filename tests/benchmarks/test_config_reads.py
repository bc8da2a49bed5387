"""The benchmark of reads: it runs everywhere, drops no contender, and says of the environment what is true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import dsa_config

ROOT = Path(dsa_config.__file__).parents[1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One quick run, where traitlets cannot be imported, with every output."""
    folder = tmp_path_factory.mktemp("reads")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['traitlets'] = None\n")
    json_file, markdown_file = folder / "record.json", folder / "table.md"
    program = [sys.executable, str(ROOT / "benchmarks/config_reads.py"), "--quick", "--check"]
    done = subprocess.run(
        [*program, "--json", str(json_file), "--markdown", str(markdown_file)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
            "JAX_PLATFORMS": "cpu",
        },
    )
    assert done.returncode in {0, 1}, done.stderr
    return SimpleNamespace(
        status=done.returncode,
        printed=done.stdout,
        record=json.loads(json_file.read_text()),
        markdown=markdown_file.read_text(),
    )


@pytest.fixture(scope="module")
def rows(run):
    """The record's rows by name."""
    return {row["name"]: row for row in run.record["rows"]}


def test_every_contender_has_a_row(run, rows):
    """Each file's contenders are measured, or named with what is missing; none is dropped."""
    folder = ROOT / "benchmarks/reads/contenders"
    assert len(rows) == len(run.record["rows"]) >= len(list(folder.glob("*.py")))
    for row in rows.values():
        assert row["state"] in {"measured", "not installed"}
        assert (row["median_ns"] is not None and row["median_ns"] > 0) == (row["state"] == "measured")
        assert bool(row["why"]) == (row["state"] != "measured")
    for word in ("os.environ", "SGLang", "vLLM", "torch", "jax", "oslo", "dynaconf", "pydantic-settings", "ours"):
        assert [name for name in rows if word in name], word


def test_an_absent_library_is_reported(rows):
    """Its contender stays in the table, as not installed, with the import that failed."""
    assert rows["traitlets trait"]["state"] == "not installed"
    assert "traitlets" in rows["traitlets trait"]["why"]


def test_the_record_says_what_it_was_measured_on(run):
    """Versions, processor, date and interpreter stand in the record."""
    record = run.record
    assert record["versions"]["pydantic-settings"]
    assert record["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert record["date"].endswith("+00:00")
    assert record["cores"] >= 1


def test_whether_a_change_is_seen_is_found_out(rows):
    """A plain attribute does not follow the environment, ours does under both names, SGLang's alias under one."""
    seen = {name: row["sees_env_change"] for name, row in rows.items()}
    assert seen["plain attribute"] == "no"
    assert seen["functools.cache getter"] == "no"
    assert seen["os.environ.get == '1', set"] == "yes"
    assert seen["ours: settings.x, no name set"] == "yes"
    assert seen["ours: only deprecated name set"] == "yes"
    assert seen["ours: another thread overrides"] == "yes"
    assert seen["SGLang style EnvBoolWithAlias, none set"] == "canonical name only"


def test_ratios_are_to_the_plain_attribute(rows):
    """The plain attribute is the unit."""
    plain = rows["plain attribute"]
    assert plain["ratio_to_plain"] == 1
    again = rows["pydantic-settings, made anew (1 field)"]
    assert again["ratio_to_plain"] == pytest.approx(again["median_ns"] / plain["median_ns"], rel=0.01)


def test_check_fails_exactly_when_a_bar_is_missed(run, rows):
    """The exit status follows the verdicts, each verdict its figure, and a miss is printed."""
    bars = run.record["bars"]
    assert len(bars) == 8
    assert run.status == int(not all(bar["met"] for bar in bars))
    for bar in bars:
        assert bar["words"] in run.printed
        assert bar["words"].startswith("met: " if bar["met"] else "MISSED: ")
    override = next(bar for bar in bars if bar["bar"].startswith("ours: settings.override"))
    assert override["met"] == (rows["ours: settings.override"]["median_ns"] <= 1_000)


def test_the_markdown_has_every_row_and_verdict(run, rows):
    """The table for the results folder leaves nothing out."""
    assert [name for name in rows if f"| {name} |" not in run.markdown] == []
    missed, met = run.markdown.split("## Bars missed")[1].split("## Bars met")
    assert missed.count("\n- ") == max(1, sum(not bar["met"] for bar in run.record["bars"]))
    assert met.count("\n- ") == max(1, sum(bar["met"] for bar in run.record["bars"]))
