"""The text of `dsa run` as it comes: to a pipe, to a terminal, to a reader who has had enough."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import threading

import pytest
from interrupted_runs import interrupted_after, takes_interrupts

from dsa_exec.cli.show_report import printable

MAIN = "from dsa_exec.cli import main; main()"
HEADER = b"the text goes on:\n"


def test_a_pipe_gets_the_text_while_it_is_made(checkpoint, text):
    """Who reads the pipe has text long before the end: here an interrupt comes only after some was read."""
    command = [sys.executable, "-c", MAIN, "run", "--model", checkpoint("deepseek_v32"), "--prompt", text]
    # So many steps that none could read all of them and then interrupt in time by chance.
    command += ["--max-new-tokens", "240", "--no-compare"]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=takes_interrupts
    ) as running:
        try:
            seen = b""
            while len(seen) < len(HEADER) + 3:
                seen += os.read(running.stdout.fileno(), 1)
            running.send_signal(2)
            rest, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert seen.startswith(HEADER)
    assert running.returncode == 130, err
    made = int(re.search(rb": (\d+) new tokens after 270 tokens", rest)[1])
    assert 3 <= made < 240


def test_the_streamed_text_is_the_text_of_the_report(dsa_here, checkpoint, text):
    """Header, text, empty line, report, in this order, and nothing on standard error; --no-report is the text alone."""
    model = checkpoint("glm_moe_dsa")
    base = "run", "--model", model, "--prompt", text, "--max-new-tokens", "24", "--no-compare"
    report, shown, alone = dsa_here(*base, "--json"), dsa_here(*base), dsa_here(*base, "--no-report")
    written = printable(report.json["text"])
    assert shown.out.startswith(f"the text goes on:\n{written}\n\n{model} on cpu, float32: 24 new tokens")
    assert alone.out == written + "\n"
    assert shown.err == alone.err == ""


def test_a_reader_who_leaves(checkpoint, text):
    """`dsa run | head -c 20` ends with 1 and without a traceback as soon as nobody reads any more."""
    model = checkpoint("deepseek_v32")
    command = [sys.executable, "-c", MAIN, "run", "--model", model, "--prompt", text, "--max-new-tokens", "200"]
    script = f"{shlex.join(map(str, command))} | head -c 20; code=${{PIPESTATUS[0]}}; echo; echo $code"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False, timeout=300)
    assert done.stdout.startswith(HEADER)
    assert done.stdout.splitlines()[-1] == b"1"
    assert done.stderr == b""


def test_an_output_that_is_full(checkpoint, text):
    """The system's answer in a sentence, and 1."""
    command = [sys.executable, "-c", MAIN, "run", "--model", checkpoint("deepseek_v32"), "--prompt", text]
    script = f"{shlex.join(map(str, command))} --max-new-tokens 3 > /dev/full"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (1, "dsa: cannot write the output: No space left on device\n")


def test_a_closed_output(checkpoint, text, tmp_path):
    """Where there is no standard output to write to, nothing is run, and the exit code is that of a failed write."""
    command = [sys.executable, "-c", MAIN, "run", "--model", checkpoint("deepseek_v32")]
    script = f"{shlex.join(map(str, command))} --prompt {text} --max-new-tokens 3 >&-"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr) == (1, "dsa: cannot write the output: standard output is closed\n")
    # Results in a file without a report need none.
    prompts, results = tmp_path / "prompts.jsonl", tmp_path / "results.jsonl"
    prompts.write_text('{"prompt": "def area("}')
    script = (
        f"{shlex.join(map(str, command))} --prompts {prompts} --output {results} --no-report --max-new-tokens 2 >&-"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert (done.returncode, done.stderr, len(results.read_text().splitlines())) == (0, "", 1)


@pytest.mark.parametrize("text_to_terminal", [True, False])
def test_the_progress_bar_does_not_get_into_the_text(text_to_terminal):
    """On a terminal the bar is gone when the text begins; a bar on the terminal leaves text in a pipe alone."""
    ours, theirs = pty.openpty()
    # A bar comes after a second, so that steps must take a while: the fourth token is waited for.
    program = (
        "import time; from dsa_exec.integrations.transformers import continuation as c; take = c.Generation._take\n"
        "def slow(self, request, logits):\n"
        "    if len(self.tokens[request]) in (0, 3): time.sleep(1.6)\n"
        "    take(self, request, logits)\n"
        f"c.Generation._take = slow; {MAIN}"
    )
    command = [sys.executable, "-c", program, "run", "--max-new-tokens", "6", "--no-compare", "--no-report"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    out = theirs if text_to_terminal else subprocess.PIPE
    with subprocess.Popen(command, stdout=out, stderr=theirs, env=environment) as running:
        os.close(theirs)
        terminal: list[bytes] = []
        reader = threading.Thread(target=_read_all, args=(ours, terminal))
        reader.start()
        piped = None if text_to_terminal else running.stdout.read()
        reader.join(timeout=120)
    os.close(ours)
    assert running.returncode == 0
    seen = b"".join(terminal)
    assert b"on our ops" in seen
    if text_to_terminal:
        assert seen.endswith(b" 4071\r\n\r\n")
        assert b"on our ops" not in seen[seen.rindex(b" 4") :]
    else:
        assert piped == b" 4071\n\n"
        assert b"4071" not in seen


def _read_all(end: int, into: list[bytes]) -> None:
    while True:
        try:
            chunk = os.read(end, 4096)
        except OSError:  # the other end is closed
            return
        if not chunk:
            return
        into.append(chunk)


def test_text_of_an_unfinished_character_is_held_back(checkpoint, text):
    """An interrupt within a character shows what there is of it once, at the end."""
    model = checkpoint("deepseek_v32")
    done = interrupted_after(9, "run", "--model", model, "--prompt", text, "--no-report", "--max-new-tokens", "30")
    assert done.code == 130
    assert 1 <= len(done.out.removesuffix("\n")) <= 9
