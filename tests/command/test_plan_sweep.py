"""`dsa plan --sweep`: a document, tables, a picture, and one sentence for what is wrong."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

import dsa_exec
from dsa_exec.cli import app
from dsa_exec.cli.plan.asked import Texts
from dsa_exec.cli.plan.sweep_asked import SweepTexts, sweep_asked_by
from dsa_exec.cli.plan.sweep_picture import costs_of
from dsa_exec.cli.plan.sweep_report import SweepRun
from dsa_exec.cli.plan.sweep_show import show_sweep
from dsa_exec.cli.plan.sweeping import sweep_report_of
from dsa_exec.core.errors import DsaError
from dsa_exec.planning.kernel_terms import Work
from dsa_exec.planning.kernel_times import kernel_times

ROOT = Path(dsa_exec.__file__).parents[1]
V32, V4 = (str(ROOT / "examples" / "plan" / name) for name in ("deepseek_v32.json", "deepseek_v4_flash.json"))
SWEEP = ("plan", "--sweep", "--model", V32, "--gpu-mem", "80GiB")
FEW = ("--gpus", "8,32", "--contexts", "64K,1M")


def test_the_document_is_what_its_schema_says(dsa_here):
    """Every cell has a split that fits, or the reason why none does; every number says where it is from."""
    document = dsa_here(*SWEEP, *FEW, "--json").json
    schema = json.loads((ROOT / "schemas" / "plan_sweep.schema.json").read_text())
    Draft202012Validator(schema).validate(document)
    cells = {(it["gpus"], it["context_tokens"]): it for it in document["cells"]}
    assert set(cells) == {(gpus, context) for gpus in (8, 32) for context in (65536, 1048576)}
    for (gpus, _), it in cells.items():
        best = it["best"]
        assert (best is None) == (gpus == 8)
        assert bool(it["why_not"]) == (best is None)
        if best:
            assert best["tp"] * best["pp"] == gpus
            assert best["attention_tp"] * best["dp"] * best["cp"] == best["tp"]
            assert best["gpu_s_per_million_tokens"] == pytest.approx(1e6 / best["tokens_per_s_per_gpu"])
            assert 0 < sum(best["chunk_ms"].values()) / 1000 < best["s_to_first_token"]
            assert best["ms_per_token"] == pytest.approx(best["pp"] * sum(best["stage_ms"].values()))
    assert all(it["origin"] for it in document["numbers"])


def test_the_text_has_a_row_for_each_cell_and_the_errors(dsa):
    """What fits, what does not and why, the error of each fit, and that two GPUs are measured or not."""
    done = dsa(*SWEEP, *FEW)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert sum(line.startswith(("32    64K ", "32    1M ")) for line in lines) == 2
    assert "8 GPUs, 64K, 1M: nothing fits: a GPU would have 79.9 GiB of weights at least" in done.out
    assert any(line.startswith("index_select prefill ") and " % " in line for line in lines)
    assert "network_gb_s 50 (assumed: one 400 Gb/s port a GPU)" in lines
    assert any(line.startswith("note: The fits of the indexer end at 256K keys") for line in lines)


def test_how_low_the_fit_of_few_long_requests_is_follows_from_the_record(monkeypatch):
    """Beyond the grid: the worst decode step of one or two requests on one GPU, with its two figures."""
    of = "The fits of the indexer end at 256K keys and are continued beyond"
    rows = [(1, 524288, 1, 90.0), (2, 1048576, 1, 999.0), (16, 1048576, 1, 9999.0), (1, 1048576, 2, 9999.0)]
    runs = [
        {"work": f"index_select decode {requests}x{keys}", "way": "", "gpus": gpus, "us": us}
        for requests, keys, gpus, us in rows
    ]
    predicted = kernel_times().us("index_select decode", Work(2, 1048576, 64))
    told = f"; with one or two requests a rank they are too low there: {predicted:.1f} us predicted, 999.0 measured"
    for known, words in ((runs, f"{of}{told} for 2 requests of 1M keys."), ([], f"{of}.")):
        times = dataclasses.replace(kernel_times(), runs=tuple(known))
        monkeypatch.setattr("dsa_exec.cli.plan.sweeping.kernel_times", lambda times=times: times)
        assert words in report(gpus="32", contexts="1M").notes
        assert not any(note.startswith(of) for note in report(gpus="32", contexts="64K").notes)


def report(**own):
    asked = sweep_asked_by(Texts(Path(V32), gpu_mem="80GiB"), SweepTexts(**own), explain=False)
    return sweep_report_of(asked)


def test_the_error_of_runs_on_two_gpus_is_told(capsys):
    """Without a record that there is none; with one its median and worst, and how many runs were predicted."""
    few = report(gpus="32", contexts="64K")
    show_sweep(few.model_copy(update={"runs": []}))
    assert "error against runs on two GPUs: not measured: there is no record of any" in capsys.readouterr().out
    runs = [
        SweepRun(work="a", way="w", gpus=gpus, measured_us=10, predicted_us=us, error=us and us / 10 - 1)
        for gpus, us in ((1, 10), (2, 11), (2, 8), (2, None))
    ]
    show_sweep(few.model_copy(update={"runs": runs}))
    told = capsys.readouterr().out
    assert "error against runs on 1 GPU: 1 of 1 predicted; median 0.0 %, worst 0.0 %" in told
    assert "error against runs on 2 GPUs: 2 of 3 predicted; median 15.0 %, worst 20.0 %" in told
    assert "not measured" not in told


def test_numbers_of_the_machine_can_be_given():
    """Each says then that an option did, and what it decides follows: a slower network costs more."""
    usual = report(gpus="64", contexts="64K")
    slow = report(gpus="64", contexts="64K", network="5", nvlink="900", node_gpus="4", gemm_share="0.5")
    said = {it.name: (it.value, it.origin) for it in slow.numbers if it.origin.startswith("--")}
    assert said == {
        "network_gb_s": (5, "--network"),
        "nvlink_gb_s": (900, "--nvlink"),
        "node_gpus": (4, "--node-gpus"),
        "gemm_share": (0.5, "--gemm-share"),
    }
    (one,), (other,) = usual.cells, slow.cells
    assert other.best.gpu_s_per_million_tokens > one.best.gpu_s_per_million_tokens


@pytest.mark.parametrize(("name", "begins"), [("sweep.png", b"\x89PNG"), ("sweep.svg", b"<?xml")])
def test_a_picture(dsa, tmp_path, name, begins):
    """Cost against GPUs and context; cells in which nothing fits are in it, and one context or none that fits too."""
    pytest.importorskip("matplotlib")
    file = tmp_path / name
    done = dsa(*SWEEP, *(FEW if name.endswith("png") else ("--gpus", "8", "--contexts", "64K")), "--plot", str(file))
    assert done.code == 0, done.err
    assert done.out.endswith(f"\npicture: {file}\n")
    assert file.read_bytes().startswith(begins)


def test_costs_are_laid_out_by_gpus_and_context():
    """A row a context, a column a number of GPUs; where nothing fits there is no number."""
    gpus, contexts, costs = costs_of(report(gpus="8,32,64", contexts="64K,128K"))
    assert (gpus, contexts) == ([8, 32, 64], [65536, 131072])
    assert [[math.isnan(cost) for cost in row] for row in costs] == [[True, False, False]] * 2
    assert costs[0][1] < costs[1][1]
    assert costs[0][2] < costs[0][1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--sweep --tp 8 --weights 3GiB", "--tp, --weights: not with --sweep, which tries every split"),
        ("--sweep --kv-dtype bf16", "--kv-dtype: not with --sweep"),
        ("--sweep --online-c128", "--online-c128: not with --sweep"),
        ("--sweep --explain", "--explain: not with --sweep, which tries every split of its own"),
        ("--gpus 8", "--gpus: only with --sweep"),
        ("--contexts 8K --network 10", "--contexts, --network: only with --sweep"),
        ("--sweep --gpus 0", "--gpus '0': is out of range; wanted a whole number from 1 to 16384"),
        ("--sweep --gpus 8,,16", "--gpus '8,,16': has an empty part; wanted whole numbers with a comma between them"),
        ("--sweep --gpus 8,", "--gpus '8,': has an empty part; wanted "),
        ("--sweep --contexts ,64K", "--contexts ',64K': has an empty part; wanted "),
        ("--sweep --contexts 32M", "--contexts '32M': is out of range; wanted a whole number from 1 to 16777216"),
        ("--sweep --network fast", "--network 'fast': is no such number; wanted a number of GB/s"),
        ("--sweep --nvlink 0", "--nvlink '0': is out of range; wanted a number of GB/s"),
        ("--sweep --nvlink 1e-400", "--nvlink '1e-400': is out of range; wanted a number of GB/s"),
        ("--sweep --nvlink 1e-300", "--nvlink '1e-300': is out of range; wanted a number of GB/s"),
        ("--sweep --network 1e99999999", "--network '1e99999999': is out of range; wanted a number of GB/s"),
        ("--sweep --network nan", "--network 'nan': is out of range; wanted a number of GB/s"),
        ("--sweep --network 100001", "--network '100001': is out of range; wanted a number of GB/s"),
        ("--sweep --nvlink 1/0", "--nvlink '1/0': is no such number; wanted a number of GB/s"),
        ("--sweep --node-gpus none", "--node-gpus 'none': is no such number; wanted "),
        ("--sweep --gemm-share 60", "--gemm-share '60': is out of range; wanted a number above 0 and at most 1"),
        ("--sweep --page-size 0", "--page-size '0': is out of range; wanted "),
        ("--sweep --mem-fraction-static 2", "--mem-fraction-static '2': is out of range; wanted "),
    ],
)
def test_options_that_do_not_go_together_or_are_wrong(options, words):
    """One sentence, which names the option, and nothing is computed."""
    with pytest.raises(DsaError) as caught:
        told_by(options)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--sweep --tp 8", "; it has --gpus and --contexts"),
        ("--sweep --explain", "; it has --gpus and --contexts"),
        ("--sweep --nvlink nan", "; wanted a number of GB/s (10^9 bytes a second) from 0.001 to 100000"),
    ],
)
def test_a_refusal_ends_with_what_is_taken(options, words):
    """The options that a sweep has, or the range."""
    with pytest.raises(DsaError) as caught:
        told_by(options)
    assert str(caught.value).endswith(words)


def test_the_help_tells_what_differs_in_a_sweep():
    """Its exit code where nothing fits, and its picture."""
    done = CliRunner().invoke(app, ["plan", "--help"], env={"COLUMNS": "300", "TERM": "dumb"})
    told = " ".join(done.stdout.split())
    assert "With --sweep it exits with 0 where nothing fits too: the report says why." in told
    assert "logits over contexts; with --sweep the cost: png, svg or pdf." in told


def told_by(options):
    done = CliRunner().invoke(app, ["plan", "--model", V32, "--gpu-mem", "80GiB", *options.split()])
    assert done.stdout == ""
    raise done.exception


def test_a_model_that_cannot_be_swept(dsa, expect_sentence):
    """One sentence and exit code 2, as of any plan."""
    done = dsa("plan", "--sweep", "--model", V4, "--gpu-mem", "80GiB", "--json")
    expect_sentence(done, "model of a sweep is deepseek_v4; wanted one of deepseek_v32, glm_moe_dsa")


def test_a_sweep_needs_no_torch():
    """Nor numpy, nor matplotlib without a picture."""
    program = (
        "import sys\nfrom dsa_exec.cli import app\n"
        f"app({[*SWEEP, *FEW, '--json']!r}, standalone_mode=False)\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"torch", "numpy", "matplotlib", "triton"}.isdisjoint(done.stderr.split())
