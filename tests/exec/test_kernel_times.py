"""Kernel times that come with the package: what the records say, fits of them, and how far off the fits are."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path

import pytest

import dsa_exec
from dsa_exec.planning.kernel_fit import Measured, fits_of, predicted_us
from dsa_exec.planning.kernel_records import RECORDS, RUNS, kernel_times_text
from dsa_exec.planning.kernel_terms import OPS, SELECTED, Work
from dsa_exec.planning.kernel_times import kernel_times

ROOT = Path(dsa_exec.__file__).parents[1]
GRID = json.loads((ROOT / RECORDS / "grid.json").read_text())


def test_the_file_of_the_package_is_what_the_records_give():
    """It is generated; `make generate` writes it."""
    assert (ROOT / "dsa_exec" / "planning" / "kernel_times.json").read_text() == kernel_times_text(ROOT)


def test_every_measured_time_of_the_grid_is_there():
    """One query row a request: each is in the file with its microseconds, and those not measured are not."""
    times = {(it.op, it.work.rows, it.work.heads, it.work.keys): it.us for it in reversed(kernel_times().measured)}
    seen = 0
    for row in GRID["rows"]:
        if "ours" in row and row.get("next_n", 1) == 1:
            attention = row["op"].startswith("sparse")
            op = row["op"] if attention else f"{row['op']} {row['phase']}"
            key = op, row["rows"], row["heads"], SELECTED if attention else row["context"]
            assert times[key] == round(row["ours"]["median_us"], 1)
            seen += 1
    # What else is there is of the other record: top-k, and attention of the backend that the grid has.
    others = [it for it in kernel_times().measured if it.op == "topk" or it.op.startswith("sparse")]
    assert seen >= 180
    assert len(kernel_times().measured) - seen <= len(others)
    assert sum(it.op == "topk" for it in others) == 5


def test_a_fit_finds_what_times_were_made_of():
    """Times that are exactly a sum of terms give these terms, whatever the number of rows."""
    fit = {"call": 12.5, "request": 0.25, "key of the longest": 0.0, "key": 3e-5}
    works = [Work(rows, keys, 64) for rows in (1, 3, 20, 256) for keys in (4096, 50_000, 262_144)]
    measured = [Measured("index_select decode", it, predicted_us("index_select decode", fit, it)) for it in works]
    (found,) = fits_of(measured).values()
    assert found == pytest.approx(fit, rel=1e-4, abs=1e-12)


def test_no_term_is_negative():
    """Times that fall with the keys have no term that makes long contexts free."""
    measured = [Measured("topk", Work(rows, keys, 0), 100 - keys / 1000) for rows in (1, 8) for keys in (1000, 50_000)]
    (found,) = fits_of(measured).values()
    assert set(found) == set(OPS["topk"])
    assert min(found.values()) >= 0
    assert found["call"] > 0


def test_errors_are_those_of_the_records():
    """Computed from what was measured: here once more, from the record itself."""
    errors = {it.name: it for it in kernel_times().errors()}
    fit = kernel_times().fits_us["index_select prefill"]
    told = errors["index_select prefill"]
    own = []
    for row in GRID["rows"]:
        if row["op"] == "index_select" and row["phase"] == "prefill":
            rows, keys, heads = row["rows"], row["context"], row["heads"]
            pairs = sum(range(keys - rows + 1, keys + 1))
            us = fit["call"] + fit["row"] * rows + pairs * (fit["pair"] + fit["pair of a head"] * heads)
            own.append(abs(us / row["ours"]["median_us"] - 1))
    assert told.rows == len(own)
    assert told.median == pytest.approx(statistics.median(own), abs=1e-3)
    assert told.worst == pytest.approx(max(own), abs=1e-3)
    assert 0 < told.median < 0.1


def test_one_time_alone_has_no_error():
    """A fit of one time is that time, which says nothing of how good it is."""
    errors = {it.name: it for it in kernel_times().errors()}
    assert {it.rows for it in errors.values() if it.median is None} == {1}
    assert all(it.worst is not None for it in errors.values() if it.rows > 1)
    assert errors["sparse_mla_prefill, 128 heads"].worst is None


def test_heads_are_padded_to_what_was_measured():
    """12 heads take what 16 do, 2 what 8 do; more than any measured are done call after call."""
    times = kernel_times()

    def us(heads):
        return times.us("sparse_mla_decode", Work(64, SELECTED, heads))

    assert us(12) == us(16)
    assert us(2) == us(8) < us(64)
    assert us(200) == 2 * us(128)
    assert us(16) == pytest.approx(55, rel=0.15)


def test_runs_on_two_gpus_are_taken_over(tmp_path):
    """A record of them, where there is one, is in the file, and changes no fit."""
    (tmp_path / RECORDS).mkdir(parents=True)
    for name in ("grid.json", "ops.json"):
        shutil.copy(ROOT / RECORDS / name, tmp_path / RECORDS)
    without = json.loads(kernel_times_text(tmp_path))
    assert without["runs"] == []
    rows = [
        {
            "work": "index_select prefill 8192x131072",
            "way": "cp rows",
            "gpus": 2,
            "us": {"median_us": 9000.04},
            "more": 1,
        },
        {"work": "index_select prefill 8192x131072", "way": "one GPU", "gpus": 1, "us": {"median_us": 18000.0}},
        {"work": "index_select prefill 8192x131072", "way": "cp keys", "gpus": 2, "us": None, "wrong": "all of it"},
    ]
    (tmp_path / RUNS).write_text(json.dumps({"device": "two", "rows": rows}))
    taken = [
        {"work": "index_select prefill 8192x131072", "way": "cp rows", "gpus": 2, "us": 9000.0},
        {"work": "index_select prefill 8192x131072", "way": "", "gpus": 1, "us": 18000.0},
    ]
    assert json.loads(kernel_times_text(tmp_path)) == {**without, "runs": taken}
