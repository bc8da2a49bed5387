"""The benchmark of the ops: its work, its record and its command, as far as they go without a GPU."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch

from benchmarks.command import main
from benchmarks.ops.measure import works
from benchmarks.ops.table import page
from benchmarks.ops.timing import Timed, replay_of
from dsa_exec.cli.bench_record import BenchRecord, Figure, Row
from dsa_exec.dispatch.registry import op_names

ROOT = Path(__file__).parents[2]
RECORD = ROOT / "benchmarks/results/h100/ops.json"
FIGURE = Figure(median_us=2.0, p10_us=1.0, p90_us=3.0)


def test_every_work_is_of_an_op_and_has_a_floor():
    """Sizes in words, once each, and a time that nothing can beat."""
    found = list(works())
    assert {work.op for work in found} <= {*op_names(), "attend"}
    assert len({(work.op, work.title) for work in found}) == len(found)
    assert all(work.floor_us > 0 for work in found)


def test_a_floor_is_of_bytes_or_of_operations():
    """Top-k moves bytes; prefill scores are bound by the matrix units."""
    floors = {(work.op, work.title): work.floor_us for work in works()}
    assert floors["topk", "2048 of 4096x65536, normal"] == pytest.approx(351, abs=1)
    assert floors["mqa_logits", "4096x65536, 64 heads"] == pytest.approx(2893, abs=10)
    assert floors["index_select", "prefill 4096x65536, 64 heads"] == pytest.approx(2893, abs=10)
    assert floors["index_select", "decode 128x65536, next_n 1, 64 heads"] == pytest.approx(352, abs=1)


def test_the_committed_record_fits_its_schema():
    """What was measured validates against schemas/bench.schema.json, and its page is the committed one."""
    schema = json.loads((ROOT / "schemas/bench.schema.json").read_text())
    jsonschema.validate(json.loads(RECORD.read_text()), schema)
    assert page(BenchRecord.model_validate_json(RECORD.read_text())) == RECORD.with_suffix(".md").read_text()


def test_the_ratio_is_to_the_best_vendor():
    """Of several vendors the fastest counts; without one there is no ratio."""
    slow = FIGURE.model_copy(update={"median_us": 4.0})
    row = Row(op="topk", work="some", captured=False, wrong=None, why="", floor_us=1.0, ours=FIGURE)
    assert row.ratio is None
    assert row.model_copy(update={"vendors": {"slow": slow, "fast": FIGURE}}).ratio == 1.0


def test_what_is_prepared_for_arguments_is_no_part_of_a_graph(monkeypatch):
    """Each call is made before the capture, and once within it; a replay's share is of all of them."""
    done = []

    @contextlib.contextmanager
    def capture(graph):
        done.append("capture")
        yield
        done.append("end")

    class Graph:
        def replay(self):
            done.append("replay")

    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    replay_of(done.append, [1, 2])(None)
    assert done == [1, 2, "capture", 1, 2, "end", "replay"]
    assert Timed(8.0, 4.0, 12.0).share_of(4) == Timed(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ops", "--op", "tokp"], "--op tokp: there is work for"),
        (["ops", "--read", "nowhere.json"], "nowhere.json"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(arguments, words, capsys):
    """Exit 2, one line, no traceback."""
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_a_missed_bar_is_told_under_check(tmp_path):
    """Of a record that has one 0 without --check, 1 with it; of one that has none 0."""
    text = RECORD.read_text().replace('"bar_met": false', '"bar_met": true')
    met, missed = tmp_path / "met.json", tmp_path / "missed.json"
    met.write_text(text)
    missed.write_text(text.replace('"bar_met": true', '"bar_met": false', 1))
    assert main(["ops", "--read", str(met), "--check"]) == 0
    assert main(["ops", "--read", str(missed)]) == 0
    assert main(["ops", "--read", str(missed), "--check"]) == 1


def test_the_help_page_names_every_option():
    """`python -m benchmarks ops --help` works from a checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "ops", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for option in ("--op", "--against", "--calls", "--json", "--markdown", "--plot", "--read", "--check"):
        assert option in done.stdout
