"""Ctrl-C in `dsa run`: what there is until then is left, and the exit code is 130."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupted_runs import interrupted_after, takes_interrupts
from jsonschema import Draft202012Validator
from tiny_checkpoints import TEXT

import dsa_exec

SCHEMAS = Path(dsa_exec.__file__).parents[1] / "schemas"
MAIN = "from dsa_exec.cli import main; main()"


def check_ended(done) -> None:
    """130, and a last word on standard error."""
    assert done.code == 130, done
    assert done.err.strip().endswith("dsa: interrupted")
    assert "Traceback" not in done.err


def test_the_text_so_far_and_its_report(checkpoint, text):
    """After seven tokens: their text, then the report, which says that it is not whole and compares nothing."""
    model = checkpoint("deepseek_v32")
    done = interrupted_after(7, "run", "--model", model, "--prompt", text, "--max-new-tokens", "40")
    check_ended(done)
    written, report = done.out.removeprefix("the text goes on:\n").split(f"\n\n{model} on cpu, float32: ")
    assert 1 <= len(written) <= 7
    assert report.startswith(f"7 new tokens after 270 tokens from {text}\n")
    assert "interrupted: the text is not whole" in report
    assert "sparse_mla_decode" in report
    assert "plain transformers" not in report


def test_the_report_as_json_is_whole(checkpoint, text):
    """One document that its schema describes, with the tokens until then, which are those of a whole run."""
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompt", text, "--json", "--max-new-tokens", "12"
    done = interrupted_after(7, *base)
    check_ended(done)
    Draft202012Validator(json.loads((SCHEMAS / "run.schema.json").read_text())).validate(done.json)
    assert (done.json["interrupted"], done.json["finished"], done.json["agreement"]) == (True, 0, None)
    assert done.json["new_tokens"] == len(done.json["tokens"]) == 7
    whole = interrupted_after(1000, *base, "--no-compare")
    assert whole.code == 0, whole.err
    assert whole.json["interrupted"] is False
    assert whole.json["tokens"][:7] == done.json["tokens"]


def test_an_interrupt_of_the_comparison_leaves_the_text_whole(checkpoint, text):
    """The tokens are all there, and only the agreement is missing."""
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompt", text, "--max-new-tokens", "5"
    done = interrupted_after(8, *base, "--json")
    check_ended(done)
    assert (done.json["finished"], done.json["new_tokens"], done.json["agreement"]) == (1, 5, None)
    shown = interrupted_after(8, *base)
    check_ended(shown)
    assert "interrupted: while it was compared" in shown.out


def test_an_interrupt_before_the_first_token(checkpoint, text):
    """During prefill there is no text; the report says so and is a document all the same."""
    model = checkpoint("deepseek_v32")
    program = MAIN.replace(
        "main()",
        "from dsa_exec.integrations.transformers import attention; "
        "attention.attend = lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt()); main()",
    )
    command = [sys.executable, "-c", program, "run", "--model", str(model), "--prompt", str(text), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 130, done
    report = json.loads(done.stdout)
    assert (report["interrupted"], report["tokens"], report["text"], report["finished"]) == (True, [], "", 0)


def test_while_it_starts():
    """Where there is nothing yet, nothing is printed: a third of a second after its begin torch is being imported."""
    command = [sys.executable, "-c", MAIN, "run"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=takes_interrupts
    ) as running:
        try:
            time.sleep(1.0)
            running.send_signal(2)
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert (running.returncode, out) == (130, "")
    assert err.strip().endswith("interrupted")
    assert "Traceback" not in err


@pytest.mark.parametrize("batch", [1, 2])
def test_finished_prompts_are_written(checkpoint, tmp_path, batch):
    """Every line is whole and describes a finished prompt; one that is not finished has no line."""
    file, results = tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps({"prompt": TEXT[:length]}) + "\n" for length in (200, 90, 150, 60)))
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompts", file, "--batch-size", batch
    done = interrupted_after(4 * 3 - 3 * batch + 1, *base, "--max-new-tokens", "3", "--output", results, "--json")
    check_ended(done)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    # One at a time, the interrupt falls into the fourth prompt; two at a time, into the second pair.
    assert [it["id"] for it in lines] == ([1, 2, 3] if batch == 1 else [1, 2])
    validator = Draft202012Validator(json.loads((SCHEMAS / "run_result.schema.json").read_text()))
    assert all(validator.is_valid(line) and len(line["tokens"]) == 3 for line in lines)
    assert (done.json["interrupted"], done.json["prompts"], done.json["finished"]) == (True, 4, len(lines))


def test_a_prompt_of_a_batch_that_is_finished_first(checkpoint, tmp_path):
    """What a batch has finished when the interrupt comes is written, though the batch is not done."""
    file = tmp_path / "prompts.jsonl"
    lines = [{"prompt": TEXT[:80], "max_new_tokens": 20}, {"prompt": TEXT[:90], "max_new_tokens": 2, "id": "short"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    done = interrupted_after(9, "run", "--model", checkpoint("glm_moe_dsa"), "--prompts", file, "--batch-size", 2)
    check_ended(done)
    (line,) = done.out.splitlines()
    assert (json.loads(line)["id"], len(json.loads(line)["tokens"])) == ("short", 2)
    assert "interrupted: 1 of 2 prompts finished" in done.err
