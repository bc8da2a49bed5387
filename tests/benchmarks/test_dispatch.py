"""The benchmark of dispatch: what it measures, and its command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.command import main
from benchmarks.dispatch import measure as measuring
from benchmarks.dispatch.measure import _doing_nothing, measure
from benchmarks.dispatch.record import DispatchRecord
from dsa_exec import topk
from dsa_exec.dispatch.registry import backends, op_names

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def record() -> DispatchRecord:
    return measure(3)


def test_every_op_is_measured(record):
    """Each op once; what a call costs is told apart from checking arguments, and is a difference of two times."""
    assert [row.op for row in record.rows] == list(op_names())
    assert max(row.select_us for row in record.rows) > 0
    assert max(row.checks_us for row in record.rows) > 0


def test_backends_work_again_afterwards(record):
    """While it is measured a backend does nothing; afterwards it does what it did."""
    with _doing_nothing("topk") as calls:
        assert topk(torch.tensor([[1.0, 3.0]]), torch.tensor([2], dtype=torch.int32), 1) == ()
        assert len(calls) == 1
    assert topk(torch.tensor([[1.0, 3.0]]), torch.tensor([2], dtype=torch.int32), 1).tolist() == [[1]]
    assert set(backends("topk")) >= {"torch", "triton", "gluon"}


def test_the_command_writes_what_it_measured(tmp_path, capsys, monkeypatch):
    """A table on the output, a record in the file; --check fails where the bar is missed."""
    monkeypatch.setattr(measuring, "BAR_US", 1e9)
    path = tmp_path / "record.json"
    assert main(["dispatch", "--rounds", "2", "--json", str(path), "--check"]) == 0
    written = DispatchRecord.model_validate(json.loads(path.read_text()))
    printed = capsys.readouterr().out
    assert all(f"| `{row.op}` | {row.backend} |" in printed for row in written.rows)
    monkeypatch.setattr(measuring, "BAR_US", 0.0)
    assert main(["dispatch", "--rounds", "2", "--check"]) == 1
    assert "(missed)" in capsys.readouterr().out
    assert main(["dispatch", "--rounds", "2", "--json", str(tmp_path / "no" / "folder.json")]) == 2
    assert "folder.json" in capsys.readouterr().err


def test_wrong_options_are_told(capsys):
    """One round has no spread; the help page names every option."""
    with pytest.raises(SystemExit) as stopped:
        main(["dispatch", "--rounds", "1"])
    assert stopped.value.code == 2
    assert "'1'; wanted a number of at least 2" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "dispatch", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(option in done.stdout for option in ("--rounds", "--json", "--check"))
