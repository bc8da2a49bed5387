"""Options of commands that cannot be followed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dsa_exec.cli import app
from dsa_exec.runtime.distributed.job import RanksMissing
from troubles import produces


@produces("OptionsApart")
def an_option_of_a_sweep_without_one():
    app(["plan", "--model", "v32", "--gpu-mem", "80GiB", "--gpus", "8"], standalone_mode=False)


@produces("UnknownArchitecture")
def an_architecture_of_no_name():
    app(["doctor", "--assume", "h100"], standalone_mode=False)


@produces("NoTorch")
def a_broken_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    app(["doctor"], standalone_mode=False)


@produces("UnusableDevice")
def a_device_that_is_not_there():
    app(["run", "--device", "cuda:9"], standalone_mode=False)


@produces("RunError")
def a_prompt_that_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app(["run", "--prompt", "prompt.txt"], standalone_mode=False)


@produces("RunError")
def a_prompt_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("long.txt").write_text("x" * 8192)
    app(["run", "--prompt", "long.txt"], standalone_mode=False)


@produces("RunError")
def heads_that_ranks_cannot_share():
    app(["run", "--nproc", "4"], standalone_mode=False)


@produces("RanksMissing")
def a_process_that_does_not_come():
    raise RanksMissing(0, (0, 1), 300.0, 300.0)


NO_TRANSFORMERS = """
import sys

class Finder:
    @staticmethod
    def find_spec(name, *_):
        if name == "transformers":
            raise ModuleNotFoundError("No module named 'transformers'", name=name)

sys.meta_path.insert(0, Finder)
from dsa_exec.cli import main
main()
"""


@produces("UnusableModel")
def a_folder_that_is_missing():
    app(["run", "--model", "v32"], standalone_mode=False)


@produces("UnusableModel")
def no_transformers():
    command = [sys.executable, "-c", NO_TRANSFORMERS, "run"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


@produces("BadLines")
def lines_that_are_no_prompts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "def area("}\n{"text": "class Stack:"}\n')
    app(["run", "--prompts", "prompts.jsonl"], standalone_mode=False)


@produces("BenchError")
def more_than_the_model_has_positions():
    app(["bench", "--context", "8K"], standalone_mode=False)


@produces("BadAssignment")
def a_side_that_assigns_nothing():
    app(["bench", "--a", "fuse_topk"], standalone_mode=False)
