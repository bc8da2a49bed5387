"""Proving the ops on a GPU: groups, commands, and the record that comes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.command import main
from benchmarks.prove import command
from benchmarks.prove.command import ALONE, DEVICE, OTHERS, command_of, groups_of
from benchmarks.prove.device_tests import device_tests
from benchmarks.prove.merge import merged
from dsa_exec.dispatch.registry import op_names

MACHINE = {"device": "H100", "arch": "sm90", "torch": "2.11", "triton": "3.6", "vendors": {}}


def record(op: str, *, date: str = "2026-01-02", **changed: object) -> dict[str, object]:
    row = {"op": op, "backend": "torch", "passed": 1, "failed": [], "refused": []}
    return {**MACHINE, "date": date, "backends": [row], **changed}


def test_every_op_is_in_one_group():
    """Also one that is new, and the tests that are of no single op."""
    named = (*op_names(), "brand_new", OTHERS, DEVICE, ALONE)
    groups = list(groups_of(named))
    assert sorted(op for group in groups for op in group) == sorted(named)
    assert (DEVICE,) in groups
    assert groups[-1] == (ALONE,)
    assert list(groups_of(["topk"])) == [("topk",)]


def test_records_of_one_machine_are_joined():
    """Rows by op, and the latest date."""
    joined = merged([record("topk", date="2026-01-03"), record("kv_store")])
    assert [row["op"] for row in joined["backends"]] == ["kv_store", "topk"]
    assert (joined["date"], joined["device"]) == ("2026-01-03", "H100")


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([], "no record to join"),
        ([record("topk"), record("kv_store", device="H200")], "records of different device: H100, H200"),
        ([record("topk"), record("topk")], "two records have the backend torch of topk"),
    ],
)
def test_records_that_do_not_belong_together_are_refused(records, words):
    """What was shown on one machine says nothing about another."""
    with pytest.raises(ValueError, match=words):
        merged(records)


def test_a_sanitized_run_takes_each_case_once():
    """Under the sanitizer a kernel takes many times as long, and nothing is recorded as proven."""
    plain = command_of(["topk"], Path("r.json"), "gluon", sanitize=False)
    assert plain[-4:] == ["--record", "r.json", "-k", "gluon"]
    sanitized = command_of(["topk"], Path("r.json"), None, sanitize=True)
    assert sanitized[0] == "compute-sanitizer"
    assert "tests/conformance/test_backends.py::test_agrees_with_the_oracle" in sanitized


def test_what_ran_on_the_device_is_told_by_its_parameters(tmp_path):
    """A real report of pytest: what passed, failed and was skipped, and why."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "import pytest\n"
        "@pytest.mark.gpu\n@pytest.mark.parametrize('heads', [1, 8, 64])\n"
        "def test_heads(heads):\n"
        "    if heads == 8:\n        pytest.skip('needs 8 arms')\n"
        "    assert heads == 1\n"
        "@pytest.mark.gpu\ndef test_none():\n    pass\n"
    )
    report = tmp_path / "report.xml"
    asked = command_of([DEVICE], report, None, sanitize=False)
    assert asked[asked.index("-m", 3) + 1] == "(gpu or device) and not whole_device"
    subprocess.run([test if part == "tests/exec" else part for part in asked], cwd=command.ROOT, capture_output=True)
    heads, none = device_tests(report)
    assert heads["test"].endswith("test_it.test_heads")
    assert (heads["passed"], heads["failed"], heads["skipped"]) == (["1"], ["64"], {"8": "needs 8 arms"})
    assert (none["passed"], none["failed"], none["skipped"]) == ([""], [], {})


def test_what_is_no_report_is_refused(tmp_path):
    """A run that was killed leaves half of one."""
    (tmp_path / "half.xml").write_text("<testsuites><testcase")
    with pytest.raises(ValueError, match=r"half\.xml is no report of pytest"):
        device_tests(tmp_path / "half.xml")


def test_a_real_run_is_recorded(tmp_path, capsys):
    """One case of one backend here and now: it passes, and the record says so."""
    path = tmp_path / "conformance.json"
    only = "step_metadata-torch-verify"
    assert main(["prove", "--op", "step_metadata", "-k", only, "--record", str(path)]) == 0
    assert "step_metadata: " in (told := capsys.readouterr().out)
    assert " passed" in told
    (row,) = json.loads(path.read_text())["backends"]
    assert (row["op"], row["backend"], row["failed"]) == ("step_metadata", "torch", [])
    assert row["passed"] >= 2


def test_a_failure_is_told_and_the_exit_is_1(tmp_path, monkeypatch, capsys):
    """Every line of the run that failed, under the names of its ops."""
    failing = [sys.executable, "-c", "print('what went wrong'); raise SystemExit(1)"]
    monkeypatch.setattr(command, "command_of", lambda *args, **kwargs: failing)
    assert main(["prove", "--op", "topk", "--logs", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "topk: what went wrong\n"


def test_an_op_that_there_is_not_is_refused(capsys):
    """In one sentence, with those that there are."""
    assert main(["prove", "--op", "tokp"]) == 2
    assert f"--op tokp: there are {op_names()[0]}, " in capsys.readouterr().err
