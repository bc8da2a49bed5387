"""`dsa bench` where something fails: a damaged model, a backend that raises anything, files that cannot be written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from safetensors.torch import load_file, save_file

import dsa_exec
from dsa_config import settings
from dsa_exec.cli.bench import checking
from dsa_exec.cli.bench.passes import Results, read_plainly
from dsa_exec.integrations.transformers import NotFinite, attention

SCHEMA = json.loads((Path(dsa_exec.__file__).parents[1] / "schemas" / "model_bench.schema.json").read_text())
UNQUANTISED = ("--a", "kv_format=model", "--a", "index_k_format=model")


@pytest.fixture
def damaged(checkpoint, tmp_path):
    """Gives a checkpoint with NaN in a row of a parameter."""

    def make(parameter: str, row: int) -> Path:
        folder = tmp_path / "damaged"
        shutil.copytree(checkpoint("deepseek_v32"), folder)
        tensors = load_file(folder / "model.safetensors")
        tensors[parameter][row] = torch.nan
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


def measured(dsa_here, model: Path, *arguments: object) -> tuple[int, list[dict]]:
    """The exit code, and the pieces of work of the report."""
    done = dsa_here("bench", "--model", model, "--repetitions", 2, *arguments, "--json", "-")
    Draft202012Validator(SCHEMA).validate(done.json)
    return done.code, done.json["work"]


@pytest.mark.parametrize("formats", [(), UNQUANTISED])
def test_a_model_whose_logits_are_no_numbers_is_refused(dsa_here, damaged, text, tmp_path, formats):
    """With the words of `dsa run`, whatever the reference; nothing is called right, and no report is written."""
    model, file = damaged("lm_head.weight", 7), tmp_path / "report.json"
    words = "the model's logits are NaN or infinite, as is its parameter lm_head.weight"
    with pytest.raises(NotFinite) as of_bench:
        dsa_here("bench", "--model", model, "--prefill", 20, *formats, "--json", file)
    assert str(of_bench.value) == words
    assert not file.exists()
    with pytest.raises(NotFinite) as of_run:
        dsa_here("run", "--model", model, "--prompt", text, "--max-new-tokens", 1)
    assert str(of_run.value) == words


def test_what_was_measured_before_a_model_is_found_damaged_is_told(dsa_here, damaged):
    """The row of a token with which only the longer prompt ends."""
    passage = (resources.files("dsa_exec.models") / "prompt.txt").read_bytes()
    last = next(place for place in range(40, 200) if passage[place] not in passage[:place])
    model = damaged("model.embed_tokens.weight", passage[last])
    code, work = measured(dsa_here, model, "--prefill", f"20,{last + 1}")
    assert code == 1
    right, wrong = (it["sides"][0] for it in work)
    assert right["figure"]["samples"] == 2
    assert wrong["wrong"] == "the model's logits are NaN or infinite, as is its parameter model.embed_tokens.weight"
    assert (wrong["figure"], wrong["check"]) == (None, None)


def test_a_reference_of_no_numbers_is_not_the_models_fault(dsa_here, checkpoint, monkeypatch):
    """Plain transformers tells the one from the other."""

    def no_numbers(self: checking.References, _: object) -> Results:
        plain = read_plainly(self._model, self._text)
        return Results(torch.full_like(plain.logits, torch.nan), plain.selected)

    monkeypatch.setattr(checking.References, "_read_on_torch", no_numbers)
    code, (work,) = measured(dsa_here, checkpoint("deepseek_v32"), "--prefill", "20")
    assert code == 1
    assert work["sides"][0]["wrong"] == (
        f"the logits of {checking.ON_TORCH} are NaN or infinite, and those of plain transformers are not"
    )


def test_logits_that_overflow_are_told_with_the_type(dsa_here, checkpoint, monkeypatch):
    """No parameter is at fault then."""

    def overflown(model: object, text: object) -> Results:
        plain = read_plainly(model, text)
        plain.logits[0, 1, 3] = torch.inf
        return plain

    monkeypatch.setattr(checking, "read_plainly", overflown)
    arguments = "--model", checkpoint("deepseek_v32"), "--prefill", "20", *UNQUANTISED
    with pytest.raises(NotFinite, match=r"NaN or infinite after 21 tokens: they overflow in torch\.float32"):
        dsa_here("bench", *arguments)


@pytest.fixture
def raising(monkeypatch):
    """Makes attention raise what is no error of ours, with fuse_topk off, after so many calls."""

    def make(after_calls: int) -> None:
        attend, calls = attention.attend, []

        def fails(*args: object, **kwargs: object):
            if settings.fuse_topk is False:
                calls.append(0)
                if len(calls) > after_calls:
                    raise RuntimeError("\nPassManager::run failed\nof some pass")
            return attend(*args, **kwargs)

        monkeypatch.setattr(attention, "attend", fails)

    return make


def test_a_backend_that_raises_anything_is_wrong(dsa_here, checkpoint, raising):
    """With the type of what it raised and the first line; the other work is done all the same."""
    raising(0)
    code, work = measured(dsa_here, checkpoint("deepseek_v32"), "--prefill", "20,30", "--b", "fuse_topk=0")
    assert code == 1
    assert [it["tokens"] for it in work] == [20, 30]
    for a, b in (it["sides"] for it in work):
        assert (a["wrong"], b["wrong"]) == (None, "RuntimeError: PassManager::run failed")
        assert (a["figure"], b["figure"], b["check"]) == (None, None, None)


def test_a_backend_that_raises_while_it_is_timed_is_wrong(dsa_here, checkpoint, raising):
    """What was measured before stays, and what it raised is told of its side."""
    layers, passes, warm_ups, repetitions = 2, 2, 1, 2
    raising(layers * (passes + warm_ups + repetitions) + layers * (passes + warm_ups))
    arguments = "--prefill", "20,30", "--b", "fuse_topk=0"
    code, (whole, broken) = measured(dsa_here, checkpoint("deepseek_v32"), *arguments)
    assert code == 1
    assert all(side["figure"]["samples"] == 2 for side in whole["sides"])
    a, b = broken["sides"]
    assert (a["wrong"], b["wrong"]) == (None, "while it was timed: RuntimeError: PassManager::run failed")
    assert b["check"]["largest_logit_difference"] <= b["check"]["allowed_logit_difference"]
    assert (a["figure"], b["figure"], broken["ratio"]) == (None, None, None)


def test_a_device_that_is_left_unusable_leaves_a_report(dsa_here, checkpoint, monkeypatch):
    """Even its tokens cannot be put there: that is what is wrong with each side."""

    def fails(*_: object) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr("dsa_exec.cli.bench.measuring.text_of", fails)
    code, (work,) = measured(dsa_here, checkpoint("deepseek_v32"), "--prefill", "20", "--b", "fuse_topk=0")
    assert code == 1
    words = "RuntimeError: an illegal memory access was encountered"
    assert [side["wrong"] for side in work["sides"]] == [words, words]


def test_backends_are_not_compared_where_one_side_did_not_run(dsa_here, checkpoint, raising):
    """What it would have run on is not known."""
    raising(0)
    base = "bench", "--model", checkpoint("deepseek_v32"), "--repetitions", 1
    done = dsa_here(*base, "--context", "20", "--b", "fuse_topk=0")
    assert done.code == 1
    assert "nothing in" not in done.out


def test_the_tokens_after_a_prompt_are_not_told_of_prefill(dsa_here, checkpoint):
    """An op of decode that only one side runs is told of decode, and not of the prefill whose check decodes, too."""
    base = "bench", "--model", checkpoint("deepseek_v32"), "--repetitions", 1, "--decode-tokens", 2
    done = dsa_here(*base, "--prefill", "100", "--context", "100", "--b", "kv_format=model")
    assert done.code == 0, done
    assert "decode: sparse_mla_decode ran on torch in a, on nothing in b" in done.out
    assert "prefill: sparse_mla_decode" not in done.out


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_a_picture_and_a_report_need_two_files(dsa, expect_sentence, tmp_path, link):
    """By whatever name, and nothing is overwritten."""
    plot = tmp_path / "a.svg"
    plot.write_text("kept")
    other = plot if link is None else tmp_path / "b.json"
    if link is not None:
        link(plot, other)
    done = dsa("bench", "--plot", plot, "--json", other)
    expect_sentence(done, f"--json {other}: is the file of --plot {plot}; wanted another")
    assert plot.read_text() == "kept"


def test_standard_output_that_is_closed():
    """The system's answer, before anything is measured: there is nowhere to print."""
    program = "from dsa_exec.cli import main; main()"
    command = ["sh", "-c", 'exec "$0" -c "$1" bench >&-', sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (1, "dsa: standard output: Bad file descriptor\n")
