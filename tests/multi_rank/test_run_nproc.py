"""`dsa run --nproc`: several processes that print what one would, and end together, with one sentence."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from multi_rank import member_cases
from multi_rank.cases import Rank
from tiny_checkpoints import TEXT, save_tiny
from typer.testing import CliRunner

from dsa_exec.cli import app, main
from dsa_exec.cli.model_loading import load_model
from dsa_exec.cli.model_option import Dtype
from dsa_exec.cli.run import member
from dsa_exec.cli.run.asked import Asked
from dsa_exec.cli.run.errors import RunError
from dsa_exec.cli.run.prompts import Prompt
from dsa_exec.cli.run.running import run_as_asked
from dsa_exec.runtime.distributed import launch as launching
from dsa_exec.runtime.distributed.job import Job
from dsa_exec.runtime.distributed.launch import RankEnded, launch

DSA = [sys.executable, "-c", "from dsa_exec.cli import main; main()"]
TESTS = str(Path(__file__).parents[1])
HANGS_AS_RANK_1 = "import os, time; time.sleep(3600 if os.environ.get('RANK') == '1' else 0)"
PROMPTS = [
    {"prompt": TEXT, "id": "long"},
    {"prompt": TEXT[:90], "max_new_tokens": 3},
    {"prompt": TEXT[:20], "max_new_tokens": 480},
]


@pytest.fixture(scope="module")
def variables() -> dict[str, str]:
    """The environment of the command, which computes on the CPU wherever the tests run."""
    return {**os.environ, "COLUMNS": "200", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny model of two heads."""
    return save_tiny(tmp_path_factory.mktemp("model"), "deepseek_v32")


def test_one_process_prints_what_one_alone_would_and_ctrl_c_ends_all(variables, checkpoint):
    """Prompts from standard input, which one process alone can read; the first two as a padded batch. Then Ctrl-C: what
    there is of the third is written, the report knows of the split and of where settings are from, the status is 130,
    and no process is left.
    """
    lines = [json.dumps(it) + "\n" for it in PROMPTS]
    command = ["run", "--prompts", "-", "--model", str(checkpoint), "--batch-size", "2", "--max-new-tokens", "5"]
    command += ["--device", "cpu"]
    formats = {"SGLANG_DSA_KV_FORMAT": "model"}
    with subprocess.Popen(
        [*DSA, *command, "--nproc", "2"],
        env={**variables, **formats},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        run.stdin.write("".join(lines))
        run.stdin.close()
        alone = CliRunner().invoke(app, command, input="".join(lines[:2]), env=formats).stdout
        assert run.stdout.readline() + run.stdout.readline() == alone
        ranks = children_of(run.pid)
        assert len(ranks) == 2
        time.sleep(1)  # within the third
        run.send_signal(signal.SIGINT)
        out, err = run.stdout.read(), run.stderr.read()
    assert run.returncode == 130
    assert not [rank for rank in ranks if is_running(rank)]
    third = json.loads(out)
    assert (third["stopped"], third["prompt_tokens"]) == ("interrupted", 20)
    assert 1 <= len(third["tokens"]) < 480
    for part in (
        "note: split over 2 processes, each with 1 of 2 heads\n",
        "kv_format",
        "environment variable SGLANG_DSA_KV_FORMAT\n",
        "interrupted: 2 of 3 prompts finished\n",
    ):
        assert part in err
    assert err.endswith("\ndsa: interrupted\n")
    assert "Traceback" not in err


def children_of(pid: int) -> list[int]:
    return [int(it) for it in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_all_ranks_refuse_is_told_once(checkpoint, monkeypatch, capfd):
    """A setting, which each of them reads: raised as it is in one process, with nothing else on the screen."""
    monkeypatch.setenv("SGLANG_DSA_KV_FORMAT", "fp9")
    done = CliRunner().invoke(app, ["run", "--nproc", "2", "--device", "cpu", "--model", str(checkpoint)])
    assert isinstance(done.exception, RunError)
    assert str(done.exception).startswith("SGLANG_DSA_KV_FORMAT='fp9' (from environment variable ")
    assert capfd.readouterr() == ("", "")


def test_ranks_have_the_prompts_of_the_first_which_alone_prints(two):
    """Whatever the others would have read, and text that is no Unicode, too."""
    wanted = [Prompt("from 0", 0, "\ud800 text", 3)]
    assert two.run(member_cases.as_one, {}) == [("", wanted, False), ("", wanted, True)]


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_rank_alone_opens_the_prompt(rank, tmp_path, monkeypatch):
    """At once, so that a mistake is told before torch is imported; another rank goes on to join."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(member, "as_member", end_here)
    asked = Asked(prompt=str(tmp_path / "nowhere"))
    with pytest.raises(RunError if rank == "0" else Joined):
        run_as_asked(asked)


@pytest.mark.parametrize("option", ["prompt", "prompts"])
def test_a_pipe_is_opened_after_joining(option, tmp_path, monkeypatch):
    """As standard input is: nobody may write to it yet, and the other ranks would take this one for lost."""
    monkeypatch.setattr(member, "as_member", end_here)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Joined):
        run_as_asked(Asked(**{option: str(tmp_path / "pipe")}))


class Joined(Exception):
    """A run has come to where it joins the other ranks."""


def end_here(_: Asked):
    raise Joined


def test_prompts_may_come_later_than_ranks_wait_for_each_other(two):
    """Somebody types them, and no rank hangs."""
    wanted = [Prompt("from 0", 0, "\ud800 text", 3)]
    assert two.run(member_cases.as_one, {}, 1.5) == [("", wanted, False), ("", wanted, True)]


def test_a_rank_that_does_not_come_is_lost(tmp_path, monkeypatch, capfd):
    """It hangs before it joins: one sentence of the other comes last, with no traceback above it, and 1."""
    (tmp_path / "sitecustomize.py").write_text(HANGS_AS_RANK_1)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["dsa", "run", "--nproc", "2", "--device", "cpu", "--rank-timeout", "2"])
    with pytest.raises(SystemExit) as ended:
        main()
    words = r"dsa: the ranks of the job did not all come: rank 0 of 2 waited \d\.\d s \(timeout 2 s\)\n"
    out, err = capfd.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert re.search(rf"^{words}\Z", err, re.M), err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("variables", "threads"),
    [({}, 3), ({"LOCAL_WORLD_SIZE": "1"}, 6), ({"LOCAL_WORLD_SIZE": "64"}, 1), ({"OMP_NUM_THREADS": "6"}, 6)],
)
def test_ranks_share_the_processors_of_their_machine(two, variables, threads):
    """Not those of all machines, and not where somebody says how many threads there shall be."""
    assert two.run(member_cases.threads_of_six, variables) == [threads, threads]


def test_one_rank_is_no_split(checkpoint):
    """It loads what one process loads, with the same notes."""
    asked = Asked(model=checkpoint, dtype=Dtype.BFLOAT16)
    cpu = torch.device("cpu")
    alone, whole = member.load_part(asked, Job(0, 1, cpu, 9.0)), load_model(checkpoint, "cpu", Dtype.BFLOAT16)
    assert (alone.notes, alone.model.dtype) == (whole.notes, torch.bfloat16)


def test_a_handler_that_is_not_of_python_is_left(monkeypatch):
    """Python names none for it, and cannot put it back."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with launching._handlers_are_kept():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        assert signal.signal(signal.SIGTERM, signal.SIG_IGN) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ranks_that_disagree_are_told_before_anything_is_loaded(two):
    """The sentence of `agree` is what each rank ends with, and tells again on its screen."""
    one, other = two.run(member_cases.as_one, {1: Rank(env={"SGLANG_DSA_KV_FORMAT": "model"})})
    assert one == other
    assert one[0].startswith('RanksDisagree: ranks disagree: kv_format is "fp8" on rank 0 (from the declaration) and ')
    assert one[0].endswith('"model" on rank 1 (from environment variable SGLANG_DSA_KV_FORMAT)')
    assert one[1:] == ([], False)


@pytest.mark.parametrize("case", ["dies", "hangs"])
def test_a_rank_that_is_lost_ends_the_job(case, monkeypatch, capfd):
    """In time, and the cause is told, not what follows from it; the launcher logs nothing, and leaves no handler."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [TESTS, os.environ.get("PYTHONPATH")])))
    before = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    ended = launch("multi_rank.job_cases", [case, "2"], 2)
    assert time.monotonic() - began < 30
    assert isinstance(ended, RankEnded)
    if case == "dies":
        assert ended == RankEnded(rank=1, code=7, said=None)
    else:
        assert (ended.rank, ended.code) == (0, 1)
        assert ended.said["text"].startswith(
            "a step of the job: rank 0 waited 2.0 s (timeout 2 s) and not all of ranks 0, 1 answered: one has died, "
        )
    assert signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr() == ("", "")
