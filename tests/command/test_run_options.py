"""Options of `dsa run`: each wrong once, and what those do that have no file of their own."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys

import pytest
import torch

from dsa_exec.cli.run.asked import Asked
from dsa_exec.cli.run.errors import RunError

HIDDEN = "import sys; sys.modules['accelerate'] = None; from dsa_exec.cli import main; main()"
ALONE = "has no effect on one process: give --nproc 2 or more, or use torchrun"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--temperature -1", "--temperature -1.0: wanted a number of at least 0"),
        ("--temperature nan", "--temperature nan: wanted a number of at least 0"),
        ("--temperature inf", "--temperature inf: wanted a number of at least 0"),
        ("--temperature 1 --top-p 0", "--top-p 0.0: wanted a number above 0 and at most 1"),
        ("--temperature 1 --top-p 1.5", "--top-p 1.5: wanted a number above 0 and at most 1"),
        ("--temperature 1 --top-p nan", "--top-p nan: wanted a number above 0 and at most 1"),
        ("--top-p 0.5", "--top-p 0.5 has no effect while nothing is drawn: give a --temperature above 0"),
        ("--sample-top-k 5", "--sample-top-k 5 has no effect while nothing is drawn"),
        ("--seed 0", "--seed 0 has no effect while nothing is drawn"),
        ("--output x.jsonl", "--output x.jsonl is for several prompts: name a file of them with --prompts"),
        ("--batch-size 2", "--batch-size 2 is for several prompts"),
        ("--prompt a --prompts b", "--prompt and --prompts say both what to read: leave one out"),
        ("--prompts a --json", "name a file for the results with --output"),
        ("--prompts a --json --output -", "name a file for the results with --output"),
        ("--prompts a --output .", "--output .: is a folder; wanted a file"),
        ("--prompts a --output ''", "--output '': names no file; wanted one, or - for standard output"),
        ("--prompts a --output no/where.jsonl", "--output no/where.jsonl: there is no folder no"),
        ("--json --no-report", "--json prints the report, and --no-report leaves it out"),
        ("--compare --no-report", "--compare is told by the report, and --no-report leaves that out: leave one out"),
        ("--max-new-tokens 0", "--max-new-tokens 0: wanted a whole number of at least 1"),
        ("--max-new-tokens many", "--max-new-tokens many: wanted a whole number of at least 1"),
        ("--max-new-tokens 1.5", "--max-new-tokens 1.5: wanted a whole number of at least 1"),
        ("--max-new-tokens ''", "--max-new-tokens '': wanted a whole number of at least 1"),
        ("--sample-top-k 0", "--sample-top-k 0: wanted a whole number of at least 1"),
        ("--batch-size 0", "--batch-size 0: wanted a whole number of at least 1"),
        ("--seed -1", "--seed -1: wanted a whole number of at least 0 and at most 9223372036854775807"),
        (f"--seed {2**63}", f"--seed {2**63}: wanted a whole number of at least 0 and at most {2**63 - 1}"),
        ("--temperature warm", "--temperature warm: wanted a number"),
        ("--temperature 1 --top-p half", "--top-p half: wanted a number"),
        ("--device-map balanced", "--device-map balanced: is unknown; wanted auto"),
        ("--device-map auto --device cpu", "--device cpu and --device-map say both where the model goes"),
        ("--model nowhere", "--model nowhere: is not there; wanted a folder in Hugging Face format"),
        ("--prompts nowhere.jsonl", "--prompts nowhere.jsonl: cannot be read: No such file or directory"),
    ],
)
def test_options_that_mean_nothing(dsa, expect_sentence, arguments, words):
    """One sentence with the option and its value, before torch is imported."""
    expect_sentence(dsa("run", *shlex.split(arguments)), words)


@pytest.mark.parametrize(("option", "value"), [("--dtype", "float64"), ("--model", "")])
def test_values_that_are_none_of_those_allowed(dsa, option, value):
    """The option and the value are named, and nothing is run: an empty folder's name is not the folder one is in."""
    done = dsa("run", option, value)
    assert (done.code, done.out) == (2, "")
    assert f"'{option}'" in done.err
    assert f"'{value}'" in done.err


def test_settings_of_attention_in_conflict(dsa, expect_sentence):
    """Told before a text is begun, with what each is set by."""
    done = dsa("run", SGLANG_DSA_DECODE_ATTENTION="fp8_kv", SGLANG_DSA_KV_FORMAT="model")
    attention, format = "environment variable SGLANG_DSA_DECODE_ATTENTION", "environment variable SGLANG_DSA_KV_FORMAT"
    expect_sentence(
        done,
        "decode_attention=fp8_kv: the MLA cache has format model",
        f"; set here: decode_attention from {attention}, kv_format from {format}",
    )


def test_without_accelerate():
    """--device-map says what to install."""
    command = [sys.executable, "-c", HIDDEN, "run", "--device-map", "auto"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    words = "--device-map needs accelerate, which spreads the model: pip install 'dsa[spread]'"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"dsa: {words}\n")


def test_what_cannot_be_run_prints_no_text(dsa, expect_sentence, checkpoint, text):
    """A backend that refuses the first call is a sentence, with no title of a text above it."""
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompt", text
    expect_sentence(dsa(*base, SGLANG_DSA_TOPK_BACKEND="gluon"), "topk: gluon: ")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype(dsa_here, checkpoint, text, dtype):
    """The report tells what was computed in."""
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompt", text, "--max-new-tokens", "2", "--no-compare"
    done = dsa_here(*base, "--dtype", dtype, "--json")
    assert done.code == 0, done.err
    assert (done.json["dtype"], done.json["new_tokens"]) == (dtype, 2)


def test_sampling(dsa_here, checkpoint, text):
    """A seed gives its text again, another seed another; the report has the numbers, and compares step by step."""
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompt", text, "--max-new-tokens", "20"
    drawn = *base, "--temperature", "2", "--sample-top-k", "50", "--top-p", "0.9", "--seed"
    first, again, other = (dsa_here(*drawn, seed, "--json") for seed in ("7", "7", "8"))
    assert first.code == 0, first.err
    assert first.json["sampling"] == {"temperature": 2.0, "top_k": 50, "top_p": 0.9, "seed": 7}
    assert first.json["tokens"] == again.json["tokens"] != other.json["tokens"]
    agreement = first.json["agreement"]
    assert agreement["forced"] is True
    assert len(agreement["plain_tokens"]) == 20
    # Each step was drawn from the same history with the same noise, in FP8 from logits that differ by hundredths.
    assert 15 <= agreement["tokens_in_common"] <= 20
    assert agreement["largest_logit_difference"] < 0.5
    shown = dsa_here(*drawn, "7")
    assert "tokens are drawn: temperature 2, among the 50 likeliest, within a probability of 0.9, seed 7" in shown.out
    words = f"it read the same text and drew the same token in {agreement['tokens_in_common']} of 20 steps"
    assert f"against plain transformers: {words}" in shown.out


def test_unquantised_formats_draw_the_tokens_of_plain_transformers(dsa_here, checkpoint, text):
    """Almost the same logits and the same noise give the same tokens, though each is drawn."""
    base = (
        "run",
        "--model",
        checkpoint("glm_moe_dsa_here"),
        "--prompt",
        text,
        "--max-new-tokens",
        "20",
        "--temperature",
        "1",
    )
    formats = {"index_k_format": "model", "kv_format": "model"}
    done = dsa_here(*base, "--json", **formats)
    assert done.code == 0, done.err
    agreement = done.json["agreement"]
    assert (agreement["same_tokens"], agreement["tokens_in_common"]) == (True, 20)
    assert agreement["plain_tokens"] == done.json["tokens"]
    assert len(set(done.json["tokens"])) > 5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_a_gpu(dsa_here, dtype):
    """The shipped model answers the question at the end of the shipped text; the report names the GPU."""
    done = dsa_here("run", "--max-new-tokens", "6", "--device", "cuda", "--dtype", dtype, "--json")
    assert done.code == 0, done.err
    assert done.json["text"] == " 4071\n"
    assert (done.json["device"], done.json["dtype"]) == (torch.cuda.get_device_name(), dtype)
    assert done.json["agreement"]["plain_tokens"][:5] == list(b" 4071")


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_spread_over_gpus(dsa_here):
    """With accelerate the layers are on all GPUs, and the text is the same."""
    pytest.importorskip("accelerate")
    done = dsa_here("run", "--max-new-tokens", "6", "--device-map", "auto", "--json")
    assert done.code == 0, done.err
    assert done.json["text"] == " 4071\n"
    assert done.json["device"] == f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--nproc 0", "--nproc 0: wanted a whole number of at least 1"),
        ("--nproc -1", "--nproc -1: wanted a whole number of at least 1"),
        ("--nproc x", "--nproc x: wanted a whole number of at least 1"),
        ("--nproc 4", "--nproc 4: num_attention_heads is 6, of which 4 ranks cannot have equal parts; wanted 1 or 2"),
        ("--nproc 2 --device-map auto", "--nproc 2 and --device-map say both how to spread the model: leave one out"),
        ("--nproc 2 --device cuda:1", "--device cuda:1: with --nproc each process takes a device of its own; wanted"),
        ("--rank-timeout soon", "--rank-timeout soon: wanted a number"),
        ("--nproc 2 --rank-timeout 0", "--rank-timeout 0.0: wanted seconds, from 1 to 86400 (a day)"),
        ("--nproc 2 --rank-timeout nan", "--rank-timeout nan: wanted seconds, from 1 to 86400 (a day)"),
        ("--nproc 2 --rank-timeout 0.99", "--rank-timeout 0.99: wanted seconds, from 1 to 86400 (a day)"),
        ("--nproc 2 --rank-timeout 86401", "--rank-timeout 86401.0: wanted seconds, from 1 to 86400 (a day)"),
        ("--rank-timeout 9", f"--rank-timeout 9.0 {ALONE}"),
        ("--nproc 1 --rank-timeout 9", f"--rank-timeout 9.0 {ALONE}"),
    ],
)
def test_several_processes_that_cannot_be(dsa_here, arguments, words):
    """One sentence, before any process is started."""
    with pytest.raises(RunError, match=f"^{re.escape(words)}"):
        dsa_here("run", "--max-new-tokens", "1", *shlex.split(arguments))


@pytest.mark.parametrize("placed", [{"device_map": "auto"}, {"device": "cuda:1"}])
def test_one_process_goes_where_it_is_told(placed):
    """As without --nproc: nothing is split."""
    assert Asked(nproc=1, **placed).nproc == 1


def test_more_processes_than_gpus(dsa_here, monkeypatch):
    """The count of both, where --device asks for GPUs and where there are some. Without accelerate, what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RunError, match=r"^--nproc 2: needs accelerate, which .*: pip install 'dsa\[spread\]'$"):
        dsa_here("run", "--nproc", "2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: "there")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    words = r"^--nproc 2: there is 1 GPU here, and each process takes one; wanted at most 1, or --device cpu with GPUs"
    for available, device in ((False, "cuda"), (True, "auto")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        with pytest.raises(RunError, match=words):
            dsa_here("run", "--nproc", "2", "--device", device)
