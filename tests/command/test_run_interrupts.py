"""Ctrl-C in `dsa run`: what there is until then is left, and the exit code is 130."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from interrupted_runs import interrupted_after, takes_interrupts
from jsonschema import Draft202012Validator
from tiny_checkpoints import TEXT

import dsa_exec
from dsa_exec.cli.run.stages import Stages

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
    # The seconds of the pass that was not whole, and no stage that was not begun.
    stages = {it["name"]: it for it in report["stages"]}
    assert list(stages) == ["import", "load", "prefill"]
    assert stages["prefill"]["seconds"] > 0
    assert (stages["prefill"]["tokens"], stages["prefill"]["tokens_per_s"]) == (None, None)


def test_a_pass_that_was_interrupted_does_not_slow_the_others():
    """Its seconds are those of the stage, and the tokens a second are of the passes that were whole."""
    stages = Stages()
    stages.add("prefill", 2.0, 100)
    stages.add("prefill", 3.0)
    stages.add("decode", 0.0, 0)
    assert [(it.seconds, it.tokens, it.tokens_per_s) for it in stages.done] == [(5.0, 100, 50.0), (0.0, 0, None)]


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
def test_what_there_is_of_prompts_is_written(checkpoint, tmp_path, batch):
    """Every line is whole JSON; one that is not finished says so, and one that was not begun has no line."""
    file, results = tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps({"prompt": TEXT[:length]}) + "\n" for length in (200, 90, 150, 60)))
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompts", file, "--batch-size", batch
    done = interrupted_after(4 * 3 - 3 * batch + 1, *base, "--max-new-tokens", "3", "--output", results, "--json")
    check_ended(done)
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    # One at a time, the interrupt comes with the fourth prompt's first token; two at a time, with the third's.
    whole = 3 if batch == 1 else 2
    assert [it["id"] for it in lines] == list(range(1, whole + 2))
    validator = Draft202012Validator(json.loads((SCHEMAS / "run_result.schema.json").read_text()))
    assert all(validator.is_valid(line) for line in lines)
    assert [(len(it["tokens"]), it["stopped"]) for it in lines] == [(3, "length")] * whole + [(1, "interrupted")]
    report = done.json
    assert (report["interrupted"], report["prompts"], report["finished"]) == (True, 4, whole)
    assert report["new_tokens"] == 3 * whole + 1


def test_a_prompt_of_a_batch_that_is_finished_first(checkpoint, tmp_path):
    """What a batch has finished when the interrupt comes is written, and what there is of the others, in order."""
    file = tmp_path / "prompts.jsonl"
    lines = [{"prompt": TEXT[:80], "max_new_tokens": 20}, {"prompt": TEXT[:90], "max_new_tokens": 2, "id": "short"}]
    file.write_text("\n".join(map(json.dumps, lines)))
    done = interrupted_after(9, "run", "--model", checkpoint("glm_moe_dsa"), "--prompts", file, "--batch-size", 2)
    check_ended(done)
    first, second = map(json.loads, done.out.splitlines())
    assert (first["id"], len(first["tokens"]), first["stopped"]) == (1, 7, "interrupted")
    assert (second["id"], len(second["tokens"]), second["stopped"]) == ("short", 2, "length")
    assert "interrupted: 1 of 2 prompts finished" in done.err


def test_a_comparison_that_did_not_happen_is_not_told(checkpoint, tmp_path):
    """Both prompts are finished, and one is compared when the interrupt comes: only that is counted."""
    file, results = tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps({"prompt": TEXT[:length]}) + "\n" for length in (80, 60)))
    base = "run", "--model", checkpoint("deepseek_v32"), "--prompts", file, "--batch-size", 2, "--compare"
    arguments = *base, "--max-new-tokens", "2", "--output", results
    # Four tokens of ours, two of plain transformers for the first prompt, and one for the second.
    done = interrupted_after(4 + 2 + 1, *arguments)
    check_ended(done)
    compared = [json.loads(line)["agreement"] is not None for line in results.read_text().splitlines()]
    assert compared == [True, False]
    assert re.search(r"against plain transformers: [01] of 1 prompt with the same tokens", done.out)
    none = interrupted_after(4 + 1, *arguments, "--json").json
    assert (none["finished"], none["compared"], none["alike"]) == (2, 0, 0)
    assert "against plain transformers: no prompt was compared" in interrupted_after(4 + 1, *arguments).out
