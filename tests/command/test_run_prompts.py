"""`dsa run --prompts`: a file of prompts, and a line of JSON for each result."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator
from tiny_checkpoints import TEXT

import dsa_exec
from dsa_exec.cli.run.errors import RunError
from dsa_exec.integrations.transformers.continuation import Generation
from dsa_exec.integrations.transformers.errors import NotFinite

SCHEMAS = Path(dsa_exec.__file__).parents[1] / "schemas"
UNQUANTISED = {"index_k_format": "model", "kv_format": "model"}
PROMPTS = [
    {"id": "a", "prompt": TEXT[:200], "max_new_tokens": 6},
    {"prompt": TEXT[:31]},
    {"id": 77, "prompt": TEXT[:120], "max_new_tokens": 2},
    {"prompt": "\u00fc\u20ac" * 50},
]


def results_of(text: str) -> list[dict]:
    """The lines of results, each of which its schema describes."""
    validator = Draft202012Validator(json.loads((SCHEMAS / "run_result.schema.json").read_text()))
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        validator.validate(line)
    return lines


@pytest.fixture
def prompts(tmp_path):
    """A file of four prompts, with a mark in front, blank lines between and the line ends of Windows."""
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(it).encode() for it in PROMPTS) + b"\r\n")
    return file


def test_results_are_lines_in_the_order_of_the_file(dsa_here, checkpoint, prompts):
    """Ids or line numbers, tokens as many as wanted, text; the report goes to standard error."""
    done = dsa_here("run", "--model", checkpoint("deepseek_v32"), "--prompts", prompts, "--max-new-tokens", "4")
    assert done.code == 0, done.err
    lines = results_of(done.out)
    assert [it["id"] for it in lines] == ["a", 3, 77, 7]
    assert [it["prompt_tokens"] for it in lines] == [200, 31, 120, 250]
    assert [len(it["tokens"]) for it in lines] == [6, 4, 2, 4]
    assert all(it["stopped"] == "length" and it["agreement"] is None for it in lines)
    assert [bytes(it["tokens"]).decode(errors="replace") for it in lines] == [it["text"] for it in lines]
    assert f"16 new tokens after 601 tokens of 4 prompts from {prompts}" in done.err
    assert "sparse_mla_decode" in done.err


@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
def test_a_batch_gives_what_prompts_give_alone(dsa_here, checkpoint, prompts, kind):
    """Padding, a longer neighbour and one that ends earlier change no token; nor do the draws of others."""
    base = "run", "--model", checkpoint(kind), "--prompts", prompts, "--max-new-tokens", "4", "--no-report"
    for drawn in ((), ("--temperature", "1.5", "--seed", "3")):
        alone, together = (dsa_here(*base, *drawn, "--batch-size", size, **UNQUANTISED) for size in ("1", "3"))
        assert alone.code == together.code == 0, alone.err + together.err
        assert results_of(alone.out) == results_of(together.out)
        assert alone.err == ""


def test_a_file_of_results_and_a_report(dsa_here, checkpoint, prompts, tmp_path):
    """--output has the results, standard output the report; --compare tells for each prompt and in all."""
    file = tmp_path / "results.jsonl"
    file.write_text("what was there before")
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompts", prompts, "--output", file, "--compare"
    done = dsa_here(*base, "--max-new-tokens", "3", "--batch-size", "2", "--json", **UNQUANTISED)
    assert (done.code, done.err) == (0, "")
    Draft202012Validator(json.loads((SCHEMAS / "run.schema.json").read_text())).validate(done.json)
    lines = results_of(file.read_text())
    assert [it["agreement"]["same_tokens"] for it in lines] == [True] * 4
    assert [it["agreement"]["plain_tokens"] for it in lines] == [it["tokens"] for it in lines]
    assert [it["agreement"]["selected_in_common"] for it in lines] == [1.0] * 4
    report = done.json
    assert (report["prompts"], report["finished"], report["alike"], report["new_tokens"]) == (4, 4, 4, 14)
    assert (report["tokens"], report["text"], report["agreement"]) == (None, None, None)
    shown = dsa_here(*base, "--max-new-tokens", "3", **UNQUANTISED)
    assert "against plain transformers: 4 of 4 prompts with the same tokens" in shown.out


def test_standard_input(dsa_here, checkpoint):
    """`--prompts -` reads it; a draw does not depend on where the prompt came from."""
    base = "run", "--model", checkpoint("deepseek_v32"), "--max-new-tokens", "2", "--no-report"
    done = dsa_here(*base, "--prompts", "-", stdin=json.dumps({"prompt": TEXT}))
    assert done.code == 0, done.err
    assert [it["prompt_tokens"] for it in results_of(done.out)] == [len(TEXT)]


def test_text_that_a_terminal_does_not_know_is_json_all_the_same(dsa, checkpoint, prompts):
    """Characters are written as JSON escapes them, never as Python does."""
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompts", prompts, "--max-new-tokens", "6", "--no-report"
    done = dsa(*base, "--temperature", "9", PYTHONIOENCODING="ascii")
    assert done.code == 0, done.err
    assert any(not it["text"].isascii() for it in results_of(done.out))
    assert done.out.isascii()


def test_what_is_finished_when_another_fails(dsa_here, checkpoint, monkeypatch, tmp_path):
    """A prompt whose logits are no numbers is the error; those of its batch that were finished are written."""
    take = Generation._take

    def fails(self: Generation, request: int, logits: torch.Tensor) -> None:
        if request == 0 and len(self.tokens[0]) == 3:
            logits = logits * math.nan
        take(self, request, logits)

    monkeypatch.setattr(Generation, "_take", fails)
    file, results = tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": TEXT[:60], "max_new_tokens": count}) for count in (5, 2)))
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompts", file, "--batch-size", "2", "--output", results
    with pytest.raises(NotFinite, match="NaN or infinite after 63 tokens"):
        dsa_here(*base)
    assert [it["id"] for it in results_of(results.read_text())] == [2]


GOOD = b'{"prompt": "good"}\n'


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "is not JSON: Expecting property name enclosed in double quotes at column 2"),
        (b"[1]", "is not a JSON object but a list"),
        (b"null", "is not a JSON object but null"),
        (b"{}", "has no 'prompt'; a line has 'prompt', and may have 'id' and 'max_new_tokens'"),
        (b'{"prompts": "x"}', "'prompts' is unknown; did you mean prompt?"),
        (b'{"prompt": "x", "seed": 1}', "'seed' is unknown; a line has 'prompt'"),
        (b'{"prompt": 5}', "prompt is 5; wanted text"),
        (b'{"prompt": " "}', "prompt holds no text"),
        (b'{"prompt": "a\\ud800"}', "prompt is no text: half a character at position 1"),
        (b'{"prompt": "\xff"}', "is not UTF-8 text: invalid start byte at byte 12"),
        (b'{"prompt": "x", "id": 1.5}', "id is 1.5; wanted text or a whole number"),
        (b'{"prompt": "x", "id": true}', "id is true; wanted text or a whole number"),
        (b'{"prompt": "x", "prompt": "y"}', "'prompt' is there twice"),
        (b'{"prompt": "x", "id": 1}', "its id 1 is that of line 1, too"),
        (b'{"prompt": "x", "max_new_tokens": 0}', "max_new_tokens is 0; wanted a whole number of at least 1"),
        (b'{"prompt": "x", "max_new_tokens": "9"}', 'max_new_tokens is "9"; wanted a whole number'),
        (b'{"prompt": "x", "max_new_tokens": true}', "max_new_tokens is true; wanted a whole number"),
        (b'{"prompt": "x", "max_new_tokens": ' + b"9" * 5000 + b"}", "is not JSON that can be read"),
        (b'{"prompt": ' + b"[" * 100_000, "is not JSON"),
        (b'{"prompt": "x", "max_new_tokens": 9000}', "1 token and 9000 new ones are more than the model's 8192"),
    ],
)
def test_a_bad_line_is_told_with_its_number(dsa, expect_sentence, tmp_path, line, words):
    """Which line, and what is wrong with it, before anything is run or a file is touched."""
    file, results = tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"
    results.write_text("kept")
    file.write_bytes(GOOD + line + b"\n")
    expect_sentence(dsa("run", "--prompts", file, "--output", results), f"{file} line 2: ", words)
    assert results.read_text() == "kept"


def test_several_bad_lines(dsa, expect_sentence, tmp_path):
    """The first is told, the others by number."""
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b"{}\n" + GOOD + b"1\n" + b"2\n")
    expect_sentence(dsa("run", "--prompts", file), f"{file} line 1: has no 'prompt'", "(2 more such lines: 3, 4)")


def test_a_line_number_that_is_somebodys_id(dsa, expect_sentence, tmp_path):
    """A line without an id has its number, which another line must not have."""
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b'{"prompt": "x", "id": 2}\n' + GOOD)
    expect_sentence(dsa("run", "--prompts", file), "line 2: its id 2 is that of line 1, too, and a line without one")


def test_a_file_without_prompts(dsa, expect_sentence, tmp_path):
    """Blank lines are none."""
    file = tmp_path / "prompts.jsonl"
    file.write_bytes(b"\n \n")
    expect_sentence(dsa("run", "--prompts", file), f"--prompts {file}: holds no prompt")


def test_results_that_cannot_be_written(dsa, checkpoint, prompts, tmp_path):
    """The system's answer, and exit code 1."""
    full = tmp_path / "full.jsonl"
    full.symlink_to("/dev/full")
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompts", prompts, "--max-new-tokens", "2", "--output"
    done = dsa(*base, full)
    assert (done.code, done.out) == (1, "")
    assert done.err == f"dsa: {full}: No space left on device\n"


def test_results_do_not_take_the_place_of_the_prompts(dsa_here, prompts, tmp_path):
    """The file of --prompts, under its name or another, or as standard input, is not written over."""
    before, link = prompts.read_bytes(), tmp_path / "link.jsonl"
    link.symlink_to(prompts)
    for output in (prompts, link):
        words = f"--output {output}: is the file of --prompts {prompts}, and results would take the place of the"
        with pytest.raises(RunError, match=re.escape(words)):
            dsa_here("run", "--prompts", prompts, "--output", output)
    command = [sys.executable, "-c", "from dsa_exec.cli import main; main()", "run", "--prompts", "-"]
    with prompts.open("rb") as stdin:
        done = subprocess.run([*command, "--output", prompts], stdin=stdin, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert prompts.read_bytes() == before


def test_output_to_standard_output(dsa_here, checkpoint, tmp_path, monkeypatch):
    """`--output -` is standard output, as elsewhere, and no file of that name."""
    monkeypatch.chdir(tmp_path)
    base = "run", "--model", checkpoint("deepseek_v32"), "--max-new-tokens", "2"
    done = dsa_here(*base, "--prompts", "-", "--output", "-", stdin=json.dumps({"prompt": TEXT[:40]}))
    assert done.code == 0, done.err
    assert [it["prompt_tokens"] for it in results_of(done.out)] == [40]
    assert "2 new tokens after 40 tokens of 1 prompt from standard input" in done.err
    assert list(tmp_path.iterdir()) == []
