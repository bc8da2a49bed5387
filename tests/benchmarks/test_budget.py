"""The benchmark of the logits budget: what it measures without a GPU, what it says, and its command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.budget import command, costs
from benchmarks.budget.command import measure, text
from benchmarks.budget.growth import STEPS, WARM_UP, contexts
from benchmarks.budget.record import BudgetRecord, Growth, Squeeze
from benchmarks.budget.work import Prefill
from benchmarks.command import main
from dsa_exec import index_select

ROOT = Path(__file__).parents[2]
MIB = 2**20


@pytest.fixture(scope="module")
def record() -> BudgetRecord:
    with torch.no_grad():
        return measure(2)


def test_the_costs_are_told_apart(record):
    """The decision, what is around it, the driver, and both; the driver is asked once in a call of many chunks."""
    ours, other, _, driver, both = record.costs
    assert min(it.median_us for it in record.costs) > 0
    assert [it.bar_us for it in record.costs] == [5.0, 5.0, None, None, None]
    assert driver.met
    assert both.median_us > driver.median_us * 0.1
    assert ours.p90_us >= ours.median_us * 0.5
    assert other.what.endswith("at every call")
    assert record.queries_per_call == 1


def test_without_a_gpu_nothing_is_squeezed(record):
    """The record says so by having none; with one it has every proof."""
    if torch.cuda.is_available():
        assert record.failures == []
        assert (len(record.squeezes), record.growth is None) == (11, False)
    else:
        assert (record.squeezes, record.growth, record.device) == ([], None, "none")


SQUEEZE = Squeeze(
    what="all but 256 MiB are taken",
    left_bytes=256 * MIB,
    budget_bytes=50 * MIB,
    chunk_bytes=40 * MIB,
    extra_bytes=33 * MIB,
    workspace_bytes=32 * MIB,
    chunks=128,
    retries=0,
    milliseconds=51.0,
    equal=True,
    within=True,
)
GROWTH = Growth(
    contexts=contexts(), reserved_bytes=[MIB] * STEPS, warm_up=WARM_UP, growth_bytes=0, flat=True, peak_extra_bytes=MIB
)


def test_what_fails_is_told(record):
    """Each bar that is missed and each proof that fails is a line, and nothing else is."""
    fine = [it.model_copy(update={"met": True}) for it in record.costs]
    good = record.model_copy(update={"costs": fine, "squeezes": [SQUEEZE], "growth": GROWTH})
    assert good.failures == []
    shown = text(good)
    assert "| all but 256 MiB are taken | 256.0 | 50.0 | 33.0 | 32.0 | 128 | 0 | 51 | yes |" in shown
    assert "200 contexts from 1024 to 262144: the allocator holds 1 MiB after 20 of them, and 0 MiB more" in shown
    assert "FAILED" not in shown
    bad = record.model_copy(
        update={
            "costs": [fine[0].model_copy(update={"met": False, "median_us": 7.0, "bar_us": 5.0})],
            "queries_per_call": 2,
            "squeezes": [SQUEEZE.model_copy(update={"equal": False, "within": False})],
            "growth": GROWTH.model_copy(update={"flat": False, "growth_bytes": 5}),
        }
    )
    words = ["takes 7.0 us, the bar is 5", "asked 2 times", "another result", "the budget was", "grew by 5 bytes"]
    assert len(bad.failures) == len(words)
    for failure, word in zip(bad.failures, words, strict=True):
        assert word in failure
        assert f"FAILED: {failure}" in text(bad)
    assert "| NO |" in text(bad)
    unknown = good.model_copy(update={"squeezes": [SQUEEZE.model_copy(update={"extra_bytes": None})]})
    assert "| 50.0 | - | 32.0 |" in text(unknown)


def test_the_contexts_grow_from_1k_to_256k():
    """In 200 steps, each longer than the one before."""
    steps = contexts()
    assert (len(steps), steps[0], steps[-1]) == (200, 1024, 262_144)
    assert steps == sorted(set(steps))


def test_the_work_is_a_prefill_at_the_end_of_its_context():
    """Rows see up to themselves; of a context that is shorter than the rows, the first ones see one key."""
    work = Prefill.make(8, 32, 4, 5, torch.device("cpu"))
    _, _, keys, k = work.arguments()
    assert (keys.ends.tolist(), k) == ([*range(25, 33)], 5)
    shorter = work.arguments(6)[2]
    assert (shorter.keys.shape[0], shorter.ends.tolist()) == (6, [1, 1, 1, 2, 3, 4, 5, 6])
    assert index_select(*work.arguments(6), out=work.out).indices is work.out


def test_the_command_writes_what_it_measured(tmp_path, capsys, monkeypatch):
    """A table on the output, a record in the file; --check fails where a bar is missed."""
    monkeypatch.setattr(costs, "BAR_US", 1e9)
    path = tmp_path / "record.json"
    assert main(["budget", "--rounds", "2", "--json", str(path), "--check"]) == 0
    written = BudgetRecord.model_validate(json.loads(path.read_text()))
    printed = capsys.readouterr().out
    assert all(f"| {it.what} | {it.median_us:.1f}" in printed for it in written.costs)
    monkeypatch.setattr(costs, "BAR_US", 0.0)
    assert main(["budget", "--rounds", "2", "--check"]) == 1
    assert "missed)" in capsys.readouterr().out
    assert main(["budget", "--rounds", "2", "--json", str(tmp_path / "no" / "folder.json")]) == 2
    assert "folder.json" in capsys.readouterr().err


def test_wrong_options_are_told(capsys):
    """A backend that there is not, or that cannot run here, is a sentence; the help page names every option."""
    assert main(["budget", "--logits", "deep_gem"]) == 2
    assert "--logits deep_gem: there are auto, aiter, deep_gemm, " in capsys.readouterr().err
    assert main(["budget", "--logits", "aiter"]) == 2
    assert "benchmarks budget: mqa_logits: aiter: " in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "budget", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(option in done.stdout for option in ("--rounds", "--logits", "--json", "--check"))
    assert command.HEADS == 64
