"""`python -m benchmarks ranks`: how it shows a record, when a bar is missed, and how it tells what it cannot do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from benchmarks.command import main
from benchmarks.ranks.record import RanksRecord, RanksRow
from benchmarks.ranks.table import HEAD, line, page
from dsa_exec.cli.bench_record import Figure

ROOT = Path(__file__).parents[2]
ONE = RanksRow(work="prefill", way="one GPU", gpus=1, us=Figure(median_us=90.0, p10_us=88.0, p90_us=95.5), one_us=90.0)
KEYS = RanksRow(
    work="prefill",
    way="keys",
    gpus=2,
    us=Figure(median_us=50.0, p10_us=49.0, p90_us=51.0),
    one_us=90.0,
    least_speedup=1.7,
)
WRONG = KEYS.model_copy(update={"us": None, "wrong": "rank 1: 3 of 9 differ"})


def record_of(*rows: RanksRow) -> RanksRecord:
    return RanksRecord(
        device="H100",
        arch="sm90",
        torch="2.11.0",
        triton=None,
        vendors={"deep_gemm": "0.1.4"},
        date="2026-01-02",
        gpus=2,
        backend="cpu:gloo,cuda:nccl",
        calls=20,
        rows=rows,
    )


def file_of(folder: Path, *rows: RanksRow) -> str:
    path = folder / "record.json"
    path.write_text(record_of(*rows).model_dump_json())
    return str(path)


def test_a_record_is_read_as_it_was_written():
    """To JSON and back it is equal; what it does not know of is refused."""
    record = record_of(ONE, KEYS, WRONG)
    told = record.model_dump_json()
    assert RanksRecord.model_validate_json(told) == record
    with pytest.raises(ValidationError, match="sockets"):
        RanksRecord.model_validate({**json.loads(told), "sockets": 2})


def test_a_bar_is_missed_by_what_is_slower_and_by_what_was_not_timed():
    """1.8 times one GPU is above a bar of 1.7, and below one of 1.9; a way that is wrong is never above it."""
    assert KEYS.speedup == pytest.approx(1.8)
    assert not KEYS.is_missed
    assert KEYS.model_copy(update={"least_speedup": 1.9}).is_missed
    assert not KEYS.model_copy(update={"least_speedup": None}).is_missed
    assert (WRONG.speedup, WRONG.is_missed) == (None, True)


def test_the_table_has_a_line_for_each_way():
    """Times, how many times as fast as one GPU, and the bar; in the place of a time what is wrong."""
    late = KEYS.model_copy(update={"least_speedup": 1.9})
    assert line(ONE) == "| prefill | one GPU | 1 | 90.0 (88.0 to 95.5) |  |  |"
    assert line(KEYS) == "| prefill | keys | 2 | 50.0 (49.0 to 51.0) | 1.80 | 1.7: met |"
    assert line(late).endswith("| 1.80 | 1.9: missed |")
    assert line(WRONG) == "| prefill | keys | 2 | WRONG: rank 1: 3 of 9 differ |  | 1.7: missed |"
    shown = page(record_of(ONE, KEYS))
    assert "2 x H100, 2026-01-02, torch 2.11.0" in shown
    assert "vendors: deep_gemm 0.1.4." in shown
    assert shown.endswith("\n".join([*HEAD, line(ONE), line(KEYS), ""]))
    assert "vendors: no vendor's." in page(record_of().model_copy(update={"vendors": {}}))


def test_a_record_is_shown_and_written_anew(tmp_path, capsys):
    """`--read` measures nothing: the table on the output, and table and record in files where they are asked for."""
    table, again = tmp_path / "table.md", tmp_path / "again.json"
    files = ["--markdown", str(table), "--json", str(again)]
    assert main(["ranks", "--read", file_of(tmp_path, ONE, KEYS), *files]) == 0
    assert capsys.readouterr().out == page(record_of(ONE, KEYS)) + "\n"
    assert table.read_text() == page(record_of(ONE, KEYS))
    assert RanksRecord.model_validate_json(again.read_text()) == record_of(ONE, KEYS)
    assert main(["ranks", "--read", file_of(tmp_path, ONE), "--json", str(tmp_path / "no" / "folder.json")]) == 2
    assert "folder.json" in capsys.readouterr().err


def test_only_a_check_minds_a_missed_bar_and_a_wrong_result_always_fails(tmp_path):
    """0 where all is right, or a bar is missed and nobody asked; 1 under `--check`, and for what is wrong."""
    late = KEYS.model_copy(update={"least_speedup": 1.9})
    assert main(["ranks", "--read", file_of(tmp_path, ONE, KEYS), "--check"]) == 0
    assert main(["ranks", "--read", file_of(tmp_path, ONE, late)]) == 0
    assert main(["ranks", "--read", file_of(tmp_path, ONE, late), "--check"]) == 1
    unbound = WRONG.model_copy(update={"least_speedup": None})
    assert main(["ranks", "--read", file_of(tmp_path, ONE, unbound)]) == 1


def test_what_is_no_record_is_told(tmp_path, capsys):
    """A file that is not there, is no JSON, or is a record of something else: exit code 2 and what is wrong."""
    assert main(["ranks", "--read", str(tmp_path / "none.json"), "--check"]) == 2
    assert "benchmarks ranks: [Errno 2] No such file or directory: " in capsys.readouterr().err
    other = tmp_path / "other.json"
    for text, words in (("# a table", "Invalid JSON"), ('{"rounds": 3, "costs": []}', "for RanksRecord")):
        other.write_text(text)
        assert main(["ranks", "--read", str(other), "--check"]) == 2
        told = capsys.readouterr()
        assert told.err.startswith("benchmarks ranks: ")
        assert words in told.err
        assert told.out == ""


def test_without_a_gpu_nothing_is_measured(capsys, monkeypatch):
    """It says what can be done in its place; with one it says how it is started."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["ranks", "--check"]) == 2
    assert capsys.readouterr().err == "benchmarks ranks: there is no CUDA device; --read FILE shows a record\n"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert main(["ranks"]) == 2
    assert "start it by torchrun --nproc-per-node 2 -m benchmarks ranks\n" in capsys.readouterr().err


def test_wrong_options_are_told(capsys):
    """One call has no spread; the help page names every option."""
    with pytest.raises(SystemExit) as stopped:
        main(["ranks", "--calls", "1"])
    assert stopped.value.code == 2
    assert "'1'; wanted a number of at least 2" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "ranks", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    options = ("--calls", "--inputs", "--work", "--json", "--markdown", "--read", "--check")
    assert all(option in done.stdout for option in options)
