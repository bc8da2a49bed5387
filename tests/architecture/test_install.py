"""`.ci/install`: a torch that is there and new enough is used, any other start gets the pinned one."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]

# Stands for the starting interpreter: answers the script on standard input with a torch of the test's choice, and makes
# an "environment" whose pip writes down how it was called.
INTERPRETER = """#!{python}
import os, runpy, sys
if sys.argv[1] == "-":
    sys.path.insert(0, {modules!r})
    exec(sys.stdin.read())
else:
    with open("calls.txt", "a") as calls:
        print("venv", *sys.argv[1:], file=calls)
    os.makedirs(".venv/bin", exist_ok=True)
    with open(".venv/bin/python", "w") as pip:
        pip.write('#!/bin/sh\\necho "pip $@" >> calls.txt\\ngrep -E "^(torch|triton)=" "$7" >> calls.txt || true\\n')
    os.chmod(".venv/bin/python", 0o755)
"""


@pytest.fixture
def install(tmp_path):
    """Runs the script from a starting interpreter that has this torch, and gives what it called."""

    def run(torch: str | None) -> list[str]:
        (tmp_path / ".ci").mkdir()
        for name in (".ci/install", ".ci/constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, tmp_path / name)
        modules = tmp_path / "modules"
        modules.mkdir()
        body = "raise ImportError" if torch is None else f"__version__ = {torch!r}"
        (modules / "torch.py").write_text(body + "\n")
        interpreter = tmp_path / "python"
        interpreter.write_text(INTERPRETER.format(python=sys.executable, modules=str(modules)))
        interpreter.chmod(interpreter.stat().st_mode | stat.S_IEXEC)
        environment = {**os.environ, "PYTHON": str(interpreter)}
        subprocess.run([tmp_path / ".ci/install"], env=environment, check=True, cwd=tmp_path)
        return (tmp_path / "calls.txt").read_text().splitlines()

    return run


@pytest.mark.parametrize("torch", ["2.11.0+cu130", "2.13.0", "3.0.0a0+git1234"])
def test_a_torch_within_the_range_is_used(install, torch):
    """The environment sees the system's packages, and the constraints leave torch and its triton alone."""
    venv, pip = install(torch)
    assert venv == "venv -m venv --system-site-packages .venv"
    assert pip.endswith("--editable .[transformers,dev]")


@pytest.mark.parametrize("torch", [None, "2.10.1", "1.13.1"])
def test_any_other_start_gets_the_pinned_torch(install, torch):
    """No torch, or one that is too old: an environment of its own, with every pin."""
    venv, pip, *pins = install(torch)
    assert venv == "venv -m venv .venv"
    assert "--constraint .ci/constraints.txt" in pip
    assert pins == ["torch==2.13.0", "triton==3.9.0"]
