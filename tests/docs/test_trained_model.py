"""The script that trains the tiny model, and the one that measures it: both run, and train what transformers runs."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dsa_exec
from dsa_exec.integrations.transformers import be_quiet, load_checkpoint, load_tiny

FOLDER = Path(dsa_exec.__file__).parents[1] / "examples" / "trained_model"
CPU = torch.device("cpu")
TEXT = b"\n".join(b"line %d of a text" % number for number in range(400))


@pytest.fixture
def scripts(monkeypatch):
    """The folder's modules, by their names."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = {path.stem for path in FOLDER.glob("*.py")}
    yield lambda name: __import__(name)
    for name in names:
        sys.modules.pop(name, None)


def run(script: str, *options: str) -> str:
    command = [sys.executable, str(FOLDER / script), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_few_steps_make_a_checkpoint(tmp_path):
    """All three stages, and a folder that `dsa run --model` takes."""
    told = run("train.py", "--smoke", "--out", str(tmp_path / "model"))
    for stage in ("dense", "indexer", "sparse"):
        assert f"{stage} 128: step 0 of " in told
    be_quiet()
    model = load_checkpoint(tmp_path / "model", CPU).model
    assert sum(value.numel() for value in model.parameters()) == 3_879_872
    assert (tmp_path / "model" / "model.safetensors").stat().st_size < 8_000_000


def test_the_measurements_run(tmp_path):
    """A small part: the tables, and the same figures as JSON; a prompt of 256 bytes is answered in every format."""
    told = run("evaluate.py", "--quick", "--json", str(tmp_path / "card.json"))
    record = json.loads((tmp_path / "card.json").read_text())
    (answered,) = record["answered"]
    assert set(answered.values()) == {256, 1}
    losses = {row["attention"]: row["loss"] for row in record["attention"]}
    assert abs(losses["top 128, model's dtype"] - losses["dense"]) < 0.05
    assert abs(losses["top 128, fp8"] - losses["dense"]) < 0.05
    recalls = [row["recall"] for row in record["attention"] if row["attention"].endswith("model's dtype")]
    assert recalls == sorted(recalls)
    assert f"| dense | {losses['dense']:.4f} | 1.0000 |" in told


@pytest.mark.parametrize(
    ("script", "options", "words"),
    [
        ("evaluate.py", ["--json", "nowhere/card.json"], "--json nowhere/card.json: there is no folder nowhere"),
        ("evaluate.py", ["--model", "nowhere"], "--model nowhere: nowhere"),
        ("train.py", ["--scale", "nan"], "--scale nan: wanted a number above 0"),
        ("train.py", ["--scale", "-1"], "--scale -1.0: wanted a number above 0"),
        ("train.py", ["--workers", "-1"], "--workers -1: wanted 0 or more"),
        ("train.py", ["--out", __file__], "File exists"),
    ],
)
def test_what_is_wrong_is_told_before_the_work(scripts, monkeypatch, capsys, script, options, words):
    """One sentence, exit 2."""
    module = scripts(script.removesuffix(".py"))
    monkeypatch.setattr(sys, "argv", [script, *options])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("topk", [None, 16])
def test_what_is_trained_is_what_transformers_runs(scripts, topk):
    """The same logits, with dense attention and with a selection."""
    be_quiet()
    model = load_tiny(CPU).model
    tokens = torch.tensor([list(TEXT[:300])])
    for layer in model.model.layers:
        layer.self_attn.indexer.index_topk = 8192 if topk is None else topk
    with torch.no_grad():
        wanted = model(tokens).logits
    torch.testing.assert_close(scripts("judge").logits_of(model, tokens, topk), wanted, rtol=1e-4, atol=1e-4)


def test_a_sequence_has_its_length_and_weights(scripts):
    """Answers count, random letters and digits do not; every question comes after its note."""
    retrieval = scripts("retrieval")
    for seed in range(20):
        made = retrieval.sample(TEXT, 1000, 5, 7, random.Random(seed), weight=4.0)
        assert len(made.text) == len(made.weights) == 1000
        assert made.weights.count(4.0) == 7 * retrieval.VALUE
        notes = {}
        lines = r"# note (\w{4}): (\d{4})\n|# what was (\w{4})\? (\d{4})\n"
        for name, number, asked, answer in re.findall(lines, made.text.decode()):
            if name:
                notes[name] = number
            else:
                assert notes[asked] == answer
        assert len(notes) == 5


def test_a_prompt_ends_in_a_question(scripts):
    """About one of its notes, whose number is the answer."""
    retrieval = scripts("retrieval")
    text, answer = retrieval.prompt(TEXT, 2000, 8, random.Random(3))
    assert len(text) == 2000
    name = text[-6:-2]
    assert text.endswith(retrieval.question(name.decode()))
    assert retrieval.note(name.decode(), answer.decode()) in text
