"""`dsa bench`: what is right is timed, in turn for two snapshots of settings; what is not is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interrupted_runs import takes_interrupts
from jsonschema import Draft202012Validator

import dsa_exec
from dsa_config import settings
from dsa_exec.integrations.transformers import attention

SCHEMA = json.loads((Path(dsa_exec.__file__).parents[1] / "schemas" / "model_bench.schema.json").read_text())
UNQUANTISED = ("--a", "kv_format=model", "--a", "index_k_format=model")
PLAIN = "plain transformers"
ON_TORCH = "our ops on torch, with the same formats"


@pytest.fixture
def bench(dsa_here, checkpoint):
    """Runs the command on a tiny checkpoint, and gives the exit code and the report, which its schema describes."""

    def run(*arguments: object, kind: str = "deepseek_v32") -> tuple[int, dict]:
        base = "bench", "--model", checkpoint(kind), "--repetitions", 3
        steps = ("--decode-tokens", 4) if "--context" in arguments else ()
        done = dsa_here(*base, *steps, *arguments, "--json", "-")
        Draft202012Validator(SCHEMA).validate(done.json)
        return done.code, done.json

    return run


@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
def test_two_snapshots(bench, kind):
    """Each piece of work has a figure for both sides and their ratio; the report says what was given for each."""
    arguments = "--prefill", "70,150", "--context", "130", "--batch", "2", "--a", "fuse_topk=1"
    code, report = bench(*arguments, "--b", "SGLANG_DSA_FUSE_TOPK=0", "--b", "retry_out_of_memory=0", kind=kind)
    assert code == 0
    assert [(it["phase"], it["tokens"]) for it in report["work"]] == [
        ("prefill", 70),
        ("prefill", 150),
        ("decode", 130),
    ]
    a, b = report["snapshots"]
    assert a["given"] == ["fuse_topk=1"]
    assert b["given"] == ["SGLANG_DSA_FUSE_TOPK=0", "retry_out_of_memory=0"]
    assert {(it["name"], it["value"], it["origin"]) for it in b["settings"]} == {
        ("fuse_topk", False, "--b"),
        ("retry_out_of_memory", False, "--b"),
    }
    assert report["alike"] is False
    for work in report["work"]:
        for side in work["sides"]:
            check, figure = side["check"], side["figure"]
            assert check["reference"] == ON_TORCH
            assert check["largest_logit_difference"] <= check["allowed_logit_difference"]
            assert check["tokens_in_common"] == check["steps"] == 2 * (5 if work["phase"] == "decode" else 2)
            assert 0 < figure["p10_ms"] <= figure["median_ms"] <= figure["p90_ms"]
            assert figure["samples"] == (12 if work["phase"] == "decode" else 3)
            tokens = 2 * (work["tokens"] if work["phase"] == "prefill" else 1)
            assert side["tokens_per_s"] == pytest.approx(1e3 * tokens / figure["median_ms"])
            assert (side["wrong"], side["peak_bytes"]) == (None, None)
            # A prefill's check reads a token after it, which is not timed.
            decoded = "torch" if work["phase"] == "decode" else None
            assert side["backends"].get("sparse_mla_decode") == decoded
        ratio = work["ratio"]
        assert 0 < ratio["least"] <= ratio["median"] <= ratio["most"]
    assert (report["batch"], report["repetitions"], report["decode_tokens"]) == (2, 3, 4)
    assert report["versions"]["torch"] == torch.__version__


def test_unquantised_caches_are_checked_against_plain_transformers(bench):
    """The same likeliest tokens and the same positions; the other side is checked against its own formats."""
    code, report = bench("--context", "150", *UNQUANTISED, "--b", "fuse_topk=0")
    assert code == 0
    (work,) = report["work"]
    a, b = (side["check"] for side in work["sides"])
    assert (a["reference"], b["reference"]) == (PLAIN, ON_TORCH)
    assert (a["selected_in_common"], a["tokens_in_common"]) == (1.0, 5)
    assert 0 < a["largest_logit_difference"] < a["allowed_logit_difference"]


def test_one_repetition_has_no_spread(dsa_here, checkpoint):
    """That is told in its place, and nothing of decode where nothing is decoded."""
    base = "bench", "--model", checkpoint("deepseek_v32"), "--repetitions", 1, "--prefill", 20
    done = dsa_here(*base, "--b", "fuse_topk=0")
    assert done.code == 0
    assert "\n1 request at a time, 1 repetition\n" in done.out
    a, b = (line for line in done.out.splitlines() if " ms " in line)
    assert (a.count("one pass"), b.count("one pass"), b.count("one repetition")) == (1, 1, 1)


def test_one_snapshot(dsa_here, checkpoint):
    """Without --b there is no ratio, and the table has no column for what nothing fills."""
    base = "bench", "--model", checkpoint("deepseek_v32"), "--repetitions", 2, "--decode-tokens", 2
    done = dsa_here(*base, "--context", "100")
    assert done.code == 0
    titles = next(line for line in done.out.splitlines() if line.startswith("work"))
    assert titles.split("  ")[0] == "work"
    assert not [title for title in ("side", "peak", "b/a") if title in titles]
    assert "a: all settings at their defaults" in done.out
    assert f"{ON_TORCH}: 3 of 3 tokens" in done.out
    (row,) = (line for line in done.out.splitlines() if line.startswith("decode 100"))
    assert " ms " in row


def test_two_equal_snapshots_show_what_chance_does(dsa_here, checkpoint):
    """The table has both sides and their ratio; that they are equal is told."""
    base = "bench", "--model", checkpoint("deepseek_v32"), "--repetitions", 2, "--prefill", "90"
    done = dsa_here(*base, "--b", "fuse_topk=yes")
    assert done.code == 0
    assert "a and b are the same settings: their ratio is what chance does" in done.out
    assert "b/a" in done.out


def test_deprecated_names_are_told(dsa_here, checkpoint):
    """On standard error, with the option that they came with."""
    base = "bench", "--model", checkpoint("deepseek_v32"), "--repetitions", 1, "--prefill", "10", "--b"
    done = dsa_here(*base, "SGLANG_NSA_FUSE_TOPK=0")
    assert done.code == 0
    assert done.err.startswith("warning: --b: SGLANG_NSA_FUSE_TOPK is deprecated since 0.1")


def test_a_name_that_is_nearly_a_setting_is_told(bench, monkeypatch):
    """It has no effect, which nothing else in the report would say."""
    monkeypatch.setenv("SGLANG_DSA_KV_FORMATT", "model")
    code, report = bench("--prefill", "10")
    assert code == 0
    (warning,) = report["warnings"]
    assert warning == (
        "SGLANG_DSA_KV_FORMATT is no name of a setting, and has no effect (environment variable "
        "SGLANG_DSA_KV_FORMATT); did you mean SGLANG_DSA_KV_FORMAT?"
    )


@pytest.fixture
def broken(monkeypatch):
    """Makes attention wrong by a twentieth wherever a condition holds."""

    def make(where) -> None:
        attend = attention.attend

        def wrong(*args: object, **kwargs: object):
            out, lse = attend(*args, **kwargs)
            return (out * 1.05 if where() else out), lse

        monkeypatch.setattr(attention, "attend", wrong)

    return make


def test_what_is_wrong_is_not_timed(bench, broken):
    """Unquantised caches, attention wrong everywhere: what differs from plain transformers is told, and 1."""
    broken(lambda: True)
    code, report = bench("--prefill", "100", "--context", "100", *UNQUANTISED)
    assert code == 1
    for work in report["work"]:
        (side,) = work["sides"]
        assert side["figure"] is None
        assert side["check"]["largest_logit_difference"] > side["check"]["allowed_logit_difference"]
        assert side["wrong"].startswith(f"logits differ from {PLAIN} by up to ")
        assert "is allowed; first after the prompt, where plain transformers would go on with token " in side["wrong"]


def test_one_wrong_side_leaves_nothing_to_compare(bench, broken, dsa_here, checkpoint):
    """FP8 caches: the side that differs from the reference of these formats is named, and neither is timed."""
    broken(lambda: settings.fuse_topk is False)
    arguments = "--context", "100", "--b", "fuse_topk=0"
    code, report = bench(*arguments)
    assert code == 1
    (work,) = report["work"]
    a, b = work["sides"]
    assert a["wrong"] is None
    assert b["wrong"].startswith(f"logits differ from {ON_TORCH} by up to ")
    assert (a["figure"], b["figure"], work["ratio"]) == (None, None, None)
    shown = dsa_here("bench", "--model", checkpoint("deepseek_v32"), *arguments)
    assert shown.code == 1
    assert f"wrong: decode 100, b: logits differ from {ON_TORCH} by up to" in shown.out
    assert [line.split("  ")[-2:] for line in shown.out.splitlines() if "not timed" in line]


def test_a_backend_that_cannot_run_is_wrong(bench):
    """Its refusal is what is wrong; the other work is done all the same."""
    code, report = bench("--prefill", "20", "--context", "100", "--a", "paged_mqa_logits_backend=gluon")
    assert code == 1
    prefill, decode = (work["sides"][0] for work in report["work"])
    assert "paged_mqa_logits: gluon: " in prefill["wrong"]
    assert "paged_mqa_logits: gluon: " in decode["wrong"]
    assert decode["check"] is None


def test_the_reference_that_does_not_fit_is_told(bench, monkeypatch):
    """That memory ran out is not what was judged."""

    def runs_out(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory for scores")

    monkeypatch.setattr("dsa_exec.cli.bench.checking.read_plainly", runs_out)
    code, report = bench("--prefill", "20", *UNQUANTISED)
    assert code == 1
    words = "the reference that it is checked against: no memory for scores"
    assert report["work"][0]["sides"][0]["wrong"] == words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--a fuse_topk=maybe", "fuse_topk='maybe' (from --a): "),
        ("--b SGLANG_NSA_FUSE_TOPK=2.5", "SGLANG_NSA_FUSE_TOPK='2.5' (from --b): "),
        ("--a fuse_topkk=1", "'fuse_topkk' is not a setting of DSASettings; did you mean fuse_topk"),
        ("--b fuse_topk", "--b 'fuse_topk': wanted NAME=VALUE, such as fuse_topk=0"),
        ("--a fuse_topk=1 --a fuse_topk=0", "--a 'fuse_topk=0': fuse_topk was given a value before"),
        ("--a fusetopk=1", "--a: 'fusetopk' is not a setting of DSASettings"),
        ("--prefill 512,many", "--prefill '512,many': 'many' is no such number"),
        ("--prefill 1,,2", "--prefill '1,,2': '' is no such number"),
        ("--prefill 2K,2048", "--prefill '2K,2048': '2048' was there before, as '2K'; wanted each length once"),
        ("--prefill 32 --decode-tokens 4", "--decode-tokens 4: nothing is decoded with --prefill alone"),
        ("--batch 0", "--batch '0': is out of range; wanted a whole number from 1 to 4096"),
        ("--batch two", "--batch 'two': is no such number"),
        ("--repetitions 0", "--repetitions '0': is out of range; wanted a whole number from 1 to 1000"),
        ("--decode-tokens 5K", "--decode-tokens '5K': is out of range; wanted a whole number from 1 to 4096"),
        ("--json=", "--json '': is no file's name"),
        ("--plot=", "--plot '': is no file's name"),
        ("--context 0", "--context '0': is out of range"),
        ("--model nowhere", "--model nowhere: is not there; wanted a folder in Hugging Face format"),
        ("--plot bench.txt", "--plot bench.txt: is no picture's name"),
        ("--json .", "--json .: is a folder; wanted a file, or - for standard output"),
        ("--json no/where.json", "--json no/where.json: there is no folder no"),
        ("--device nonsense", "--device nonsense"),
        ("--context 8190", "--context 8190: with 16 more they are over the model's 8192 positions"),
        ("--prefill 8K", "--prefill 8192: with 1 more it is over the model's 8192 positions"),
    ],
)
def test_options_that_mean_nothing(dsa, expect_sentence, arguments, words):
    """One sentence with the option and its value, and nothing is measured."""
    expect_sentence(dsa("bench", *arguments.split()), words)


def test_a_type_that_is_not_computed_in(dsa):
    """The option is named."""
    done = dsa("bench", "--dtype", "int8")
    assert (done.code, done.out) == (2, "")
    assert "'--dtype'" in done.err


def test_a_file_of_the_report(dsa_here, checkpoint, tmp_path):
    """Beside the table; one that cannot be written is the system's answer."""
    base = "bench", "--model", checkpoint("deepseek_v32"), "--repetitions", 1, "--prefill", "10", "--json"
    done = dsa_here(*base, tmp_path / "bench.json")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].startswith("prefill 10")
    Draft202012Validator(SCHEMA).validate(json.loads((tmp_path / "bench.json").read_text()))
    (tmp_path / "full.json").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as raised:
        dsa_here(*base, tmp_path / "full.json")
    assert raised.value.filename == str(tmp_path / "full.json")


def test_an_interrupt_leaves_what_was_whole(checkpoint):
    """The first piece of work is there, the second is not; 130, and a document that its schema describes."""
    program = (
        "import os, signal\n"
        "from dsa_exec.cli.bench import timing\n"
        "seconds, calls = timing.Runner.seconds, []\n"
        "def counted(self):\n"
        "    calls.append(0)\n"
        "    if len(calls) == 5: os.kill(os.getpid(), signal.SIGINT)\n"  # two of them are warm-ups
        "    return seconds(self)\n"
        "timing.Runner.seconds = counted\n"
        "from dsa_exec.cli import main; main()"
    )
    arguments = ["bench", "--model", str(checkpoint("deepseek_v32")), "--prefill", "20,30,40", "--repetitions", "2"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--json", "-"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        preexec_fn=takes_interrupts,
    )
    assert done.returncode == 130, done
    assert done.stderr.strip().endswith("dsa: interrupted")
    report = json.loads(done.stdout)
    Draft202012Validator(SCHEMA).validate(report)
    assert ([it["tokens"] for it in report["work"]], report["interrupted"]) == ([20], True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu(bench):
    """Right in 32 and in 16 bits, with the memory of each side; the backend is the one that was named."""
    for dtype in ("float32", "bfloat16"):
        arguments = "--prefill", "200", "--context", "300", "--device", "cuda", "--dtype", dtype, "--batch", "2"
        code, report = bench(*arguments, "--b", "topk_backend=torch")
        assert code == 0, report["work"]
        for work in report["work"]:
            assert all(side["peak_bytes"] > 0 for side in work["sides"])
            assert work["sides"][1]["backends"]["topk"] == "torch"
