"""The page of backends: what a record of a conformance run becomes."""

from __future__ import annotations

import json

from dsa_exec.cli.backends_page import backends_page

RECORD = {
    "device": "a GPU",
    "arch": "sm90",
    "torch": "2.11",
    "triton": "3.6",
    "date": "2026-01-02",
    "backends": [
        {"op": "topk", "backend": "torch", "passed": 3, "failed": [], "refused": []},
        {"op": "topk", "backend": "triton", "passed": 2, "failed": ["test[one]"], "refused": ["topk: triton: no"]},
        {
            "op": "topk",
            "backend": "aiter",
            "passed": 0,
            "failed": [],
            "refused": ["topk: aiter: for ROCm (chosen by x)"],
        },
    ],
    "device_tests": [
        {"test": "tests.exec.test_it.test_heads", "passed": ["1", "8"], "failed": [], "skipped": {"64": "no"}}
    ],
}


def page_of(tmp_path, record) -> str:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    return backends_page([path])


def test_what_passed_failed_was_refused_or_not_run(tmp_path):
    """A cell for each backend that there is; only a backend that takes no call at all is told as refused."""
    page = page_of(tmp_path, RECORD)
    assert "| op | backend | sm90: a GPU, torch 2.11, triton 3.6 |\n" in page
    assert "| `topk` | torch | 3 passed, 2026-01-02 |\n" in page
    assert "| `topk` | triton | 2 passed, 1 failed, 2026-01-02 |\n" in page
    assert "| `topk` | aiter | refused, 2026-01-02 |\n" in page
    assert "| `topk` | gluon | not run |\n" in page
    assert "- sm90: topk: aiter: for ROCm\n" in page


def test_what_is_no_case_of_a_contract_has_a_table(tmp_path):
    """A line a test; a record without such tests has no table."""
    assert "| `test_it.test_heads` | 2 | 0 | 1 |\n" in page_of(tmp_path, RECORD)
    without = {name: value for name, value in RECORD.items() if name != "device_tests"}
    assert "Tests on the device" not in page_of(tmp_path, without)
