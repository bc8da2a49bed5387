"""`dsa run`: a model reads a text and continues it."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from jsonschema import Draft202012Validator
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TEXT, save_tiny
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

import dsa_config
import dsa_exec
from dsa_exec import cli
from dsa_exec.cli import app
from dsa_exec.cli.show_report import printable, size
from dsa_exec.integrations.transformers import agreement

SCHEMA = Path(dsa_exec.__file__).parents[1] / "schemas" / "run.schema.json"
UNQUANTISED = {"SGLANG_DSA_INDEX_K_FORMAT": "model", "SGLANG_DSA_KV_FORMAT": "model"}


def test_the_shipped_model_reads_the_shipped_text(dsa):
    """No arguments: the text, which answers the question at the end of the prompt, then settings, backends with
    reasons, logits, stages and agreement.
    """
    done = dsa("run", "--max-new-tokens", "6")
    assert done.code == 0, done.err
    assert done.out.startswith("the text goes on:\n 4071\n")
    for part in (
        "settings: all at their defaults",
        "sparse_mla_decode",
        "auto: triton declines: interpreted on the cpu",
        "logits: ",
        "in 1 chunk, budget",
        "prefill",
        "against plain transformers: ",
        "% of selected positions in common",
        f"\ndsa {dsa_config.__version__}, Python ",
        f", torch {torch.__version__}, ",
        f", transformers {transformers.__version__}; at most 6 new tokens\n",
        "The caches of index keys and KV are FP8 here, and plain transformers quantises nothing: ",
    ):
        assert part in done.out
    assert re.search(r"^decode +[0-9.]+ +[0-9.]+ *$", done.out, re.MULTILINE)
    assert done.err == ""


def test_the_report_as_json(dsa, text):
    """One document that its schema describes, with every number of the text report."""
    done = dsa(
        "run", "--prompt", text, "--max-new-tokens", "5", "--json", SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES="500000"
    )
    assert done.code == 0, done.err
    report = done.json
    Draft202012Validator(json.loads(SCHEMA.read_text())).validate(report)
    assert report["prompt"] == str(text)
    assert report["prompt_tokens"] == len(TEXT)
    assert len(report["tokens"]) == 5
    assert [it["name"] for it in report["settings"]] == ["mqa_logits_max_chunk_bytes"]
    assert {it["op"] for it in report["backends"]} == {
        "index_gather",
        "index_quant",
        "index_select",
        "index_store",
        "kv_gather",
        "kv_store",
        "mqa_logits",
        "paged_mqa_logits",
        "sparse_mla_decode",
        "sparse_mla_prefill",
        "topk",
    }
    logits = report["logits"]
    assert logits["budget_bytes"] == logits["cap_bytes"] == 500000
    # 270 keys in pages of 64 are 320 columns for decode; prefill scores the 270 that there are.
    assert (logits["rows"], logits["row_bytes"]) == (270, 1080)
    assert (logits["is_too_small"], logits["retries"], logits["live_bytes"]) == (False, 0, None)
    assert logits["least_bytes"] < logits["chunk_bytes"] <= 500000
    assert 1 < logits["chunks"] < 270
    assert report["new_tokens"] == 5
    assert (report["prompts"], report["finished"], report["interrupted"], report["sampling"]) == (1, 1, False, None)
    plain = ["plain transformers, prefill", "plain transformers, decode"]
    stages = {it["name"]: it for it in report["stages"]}
    assert list(stages) == ["import", "load", "prefill", "decode", *plain, "compare"]
    assert [it["tokens"] for it in stages.values()] == [None, None, 270, 4, 270, 4, None]
    for it in (stages["prefill"], stages["decode"]):
        assert it["tokens_per_s"] == pytest.approx(it["tokens"] / it["seconds"], rel=0.01)
    assert (stages["load"]["tokens_per_s"], report["max_new_tokens"]) == (None, 5)
    assert report["caches"] == {"index_k": "fp8", "kv": "fp8"}
    assert report["versions"]["torch"] == torch.__version__


def test_a_short_prompt_is_attended_to_densely(dsa, tmp_path):
    """The report has the op, and tells that its rows select nothing, though the steps of decode after it select."""
    file = tmp_path / "short.txt"
    file.write_text(TEXT[:100])
    arguments = ("run", "--prompt", file, "--max-new-tokens", "3")
    done = dsa(*arguments, "--json", **UNQUANTISED)
    assert done.code == 0, done.err
    assert done.json["agreement"]["selected_in_common"] is None
    assert done.json["agreement"]["same_tokens"] is True
    calls = {it["op"]: it["calls"] for it in done.json["backends"]}
    assert calls["dense_mla_prefill"] == calls["kv_gather"] == 4
    assert calls["index_select"] == 2 * 4
    shown = dsa(*arguments, **UNQUANTISED)
    told = "the same 3 tokens; the prompt attends to all of itself, so that its rows select nothing to compare; largest"
    assert told in shown.out
    assert done.json["caches"] == {"index_k": "model", "kv": "model"}
    assert "FP8" not in shown.out


def test_a_slip_in_the_name_of_a_setting_is_told(dsa, text):
    """A variable that is nearly a setting's has no effect, and the run says so in both reports."""
    base = "run", "--prompt", text, "--max-new-tokens", "1", "--no-compare"
    done = dsa(*base, "--json", SGLANG_DSA_KV_FORMATT="model")
    words = "SGLANG_DSA_KV_FORMATT is no name of a setting, and has no effect"
    assert done.code == 0, done.err
    (told,) = done.json["warnings"]
    assert told.startswith(words)
    assert told.endswith("did you mean SGLANG_DSA_KV_FORMAT?")
    assert done.err == f"warning: {told}\n"


@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
def test_unquantised_formats_give_the_tokens_of_plain_transformers(dsa, checkpoint, text, kind):
    """A checkpoint from a folder, without a tokenizer: bytes as tokens, and token for token the same."""
    done = dsa("run", "--model", checkpoint(kind), "--prompt", text, "--json", **UNQUANTISED)
    assert done.code == 0, done.err
    report = done.json
    assert report["tokens"] == report["agreement"]["plain_tokens"]
    assert report["agreement"]["same_tokens"] is True
    assert report["agreement"]["first_divergence"] is None
    assert report["agreement"]["selected_in_common"] == 1.0
    assert report["notes"] == ["the checkpoint has no tokenizer: the text's bytes are used as tokens"]


def test_standard_input_and_no_comparison(dsa):
    """`--prompt -` reads standard input; --no-compare leaves plain transformers out."""
    done = dsa("run", "--prompt", "-", "--max-new-tokens", "1", "--no-compare", "--json", stdin=TEXT)
    assert done.code == 0, done.err
    assert done.json["prompt"] == "standard input"
    assert done.json["agreement"] is None
    assert not [it for it in done.json["stages"] if "plain" in it["name"]]


def test_a_named_backend_is_reported(dsa, text):
    """The report tells that the setting names it."""
    done = dsa(
        "run", "--prompt", text, "--max-new-tokens", "2", "--no-compare", "--json", SGLANG_DSA_TOPK_BACKEND="torch"
    )
    (topk,) = (it for it in done.json["backends"] if it["op"] == "topk")
    assert (topk["backend"], topk["choice"], topk["why"]) == ("torch", "torch", "topk_backend names it")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe\x00", "is not UTF-8 text: invalid start byte at byte 0"),
        (b" \n", "holds no text"),
        (b"x" * 8192, "8192 tokens and 64 new ones are more than the model's 8192 positions"),
    ],
    ids=["missing", "binary", "blank", "too long"],
)
def test_a_bad_prompt_is_one_sentence(dsa, expect_sentence, tmp_path, content, words):
    """A missing, binary, empty or overlong text: which file, and what is wrong with it."""
    file = tmp_path / "prompt"
    if content is not None:
        file.write_bytes(content)
    expect_sentence(dsa("run", "--prompt", file), str(file), words)


def test_a_folder_as_prompt(dsa, expect_sentence, tmp_path):
    """What cannot be read as a file is told."""
    expect_sentence(dsa("run", "--prompt", tmp_path), "Is a directory")


def test_a_bad_checkpoint_is_one_sentence(dsa, expect_sentence, checkpoint, tmp_path):
    """A truncated file: which folder, and what is wrong. Every other kind of damage: tests of load_checkpoint."""
    for file in checkpoint("deepseek_v32").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:100_000])
    expect_sentence(dsa("run", "--model", tmp_path), str(tmp_path), "the weights cannot be loaded")


def test_logits_that_are_no_numbers_are_one_sentence(dsa, expect_sentence, checkpoint, text, tmp_path):
    """A checkpoint of NaN is told, with the parameter that is damaged, and no report is printed."""
    shutil.copytree(checkpoint("deepseek_v32"), tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    expect_sentence(
        dsa("run", "--model", tmp_path, "--prompt", text, "--json"), "logits are NaN or infinite", "lm_head.weight"
    )


def test_json_has_no_word_for_nan(monkeypatch, text):
    """A number that JSON cannot hold is never printed as if it could."""
    found = agreement.Agreement(None, 1.0, float("nan"))
    monkeypatch.setattr(agreement, "agreement", lambda *_, **__: found)
    done = CliRunner().invoke(app, ["run", "--prompt", str(text), "--max-new-tokens", "1", "--json"])
    assert isinstance(done.exception, ValueError)
    assert "NaN" not in done.stdout


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "cannot write the output: Broken pipe"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "weights"), "weights: No such file or directory"),
        (OSError("the model's file vanished"), "the model's file vanished"),
        (OSError(), "OSError"),
        (ConnectionError(), "ConnectionError"),
    ],
)
def test_what_the_system_refuses_is_told_as_it_is(monkeypatch, capsys, error, words):
    """Only a failed write is called one; the reason is never empty."""

    def fails(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"dsa: {words}\n"


def test_a_format_that_the_geometry_does_not_fit(dsa, expect_sentence, text, tmp_path):
    """The sentence names the setting that would make it run."""
    save_tiny(tmp_path, "deepseek_v32", kv_lora_rank=96)
    done = dsa("run", "--model", tmp_path, "--prompt", text, "--no-compare")
    expect_sentence(done, "kv_lora_rank is 96", "kv_format=model")


@pytest.mark.parametrize(
    ("device", "words"),
    [("cuda:99", ""), ("nonsense", "is no device; wanted auto, cpu, cuda"), ("meta", "computes nothing; wanted auto")],
)
def test_a_bad_device_is_one_sentence(dsa, expect_sentence, device, words):
    """A device that torch does not have or know, or that has no numbers."""
    expect_sentence(dsa("run", "--device", device), f"--device {device}: {words}")


def test_a_tokenizer_of_another_model(dsa, expect_sentence, text, tmp_path):
    """A token that the model does not know is told before the model fails on it."""
    save_tiny(tmp_path, "deepseek_v32", vocab_size=300)
    words = Tokenizer(WordLevel({"[UNK]": 300}, unk_token="[UNK]"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]").save_pretrained(tmp_path)
    done = dsa("run", "--model", tmp_path, "--prompt", text, "--no-compare")
    expect_sentence(done, "the tokenizer gives token 300, and the model knows 300 of them")


def test_decisions_are_logged_on_demand(dsa):
    """debug_log_decisions tells each choice of a backend on standard error."""
    done = dsa("run", "--max-new-tokens", "1", "--no-compare", SGLANG_DSA_DEBUG_LOG_DECISIONS="1")
    assert done.code == 0
    assert "index_select runs on torch (auto: gluon declines: for sm90, this is cpu; triton declines: " in done.err


def test_a_budget_below_a_row_is_told(dsa, text):
    """Rows come one by one all the same, and the report says so."""
    done = dsa(
        "run", "--prompt", text, "--max-new-tokens", "1", "--no-compare", SGLANG_DSA_MQA_LOGITS_MAX_CHUNK_BYTES="8"
    )
    assert "270 rows of 1.1 KiB in 270 chunks, budget 8 bytes" in done.out
    assert "of the smallest chunk, and was exceeded." in done.out


@pytest.mark.parametrize("redirection", ["> /dev/full", "--prompt - <&-"])
def test_streams_that_do_not_work(redirection):
    """An output that cannot be written and an input that is closed are a sentence each."""
    program = "from dsa_exec.cli import main; main()"
    command = "config show" if "full" in redirection else "run"
    script = f"{shlex.quote(sys.executable)} -c '{program}' {command} {redirection}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert done.stderr.startswith("dsa: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_terminal_that_knows_ascii_only(dsa):
    """Characters that cannot be shown are escaped, and nothing fails."""
    done = dsa("run", "--max-new-tokens", "4", "--no-compare", PYTHONIOENCODING="ascii")
    assert (done.code, done.err) == (0, "")


def test_without_transformers(tmp_path, dsa, expect_sentence):
    """The command says what to install."""
    (tmp_path / "transformers.py").write_text("raise ModuleNotFoundError(name='transformers')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    expect_sentence(dsa("run", PYTHONPATH=path), "pip install 'dsa[transformers]'")


def test_control_characters_do_not_reach_the_terminal():
    """Text of a model is shown with control characters made visible."""
    assert printable("a\x1b[31mb\n\tc\x07") == "a\N{REPLACEMENT CHARACTER}[31mb\n\tc\N{REPLACEMENT CHARACTER}"


def test_sizes_for_people():
    """Bytes in the unit that fits."""
    assert [size(n) for n in (0, 1023, 1024, 5 * 2**20, 3 * 2**30, 2**50)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
        "1024.0 TiB",
    ]
