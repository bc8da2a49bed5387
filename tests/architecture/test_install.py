"""`.ci/install`: a torch that is there and new enough is used, any other start gets the pinned one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]

# Stands for the starting interpreter: answers the script on standard input with a torch of the test's choice, and makes
# an "environment" whose pip writes down how it was called.
INTERPRETER = """#!/bin/sh
exec "{python}" "{script}" "$@"
"""
SCRIPT = """
import os, sys
if sys.argv[1] == "-":
    sys.path.insert(0, {modules!r})
    sys.version_info = {version}
    exec(sys.stdin.read())
elif sys.argv[1] == "-V":
    print("Python of the test")
else:
    with open("calls.txt", "a") as calls:
        print("venv", *sys.argv[1:], file=calls)
    os.makedirs(".venv/bin", exist_ok=True)
    with open(".venv/bin/python", "w") as pip:
        pip.write('#!/bin/sh\\necho "pip $@" >> calls.txt\\ngrep -E "^(torch|triton)[=<]" "$7" >> calls.txt || true\\n')
    os.chmod(".venv/bin/python", 0o755)
"""


@pytest.fixture
def install(tmp_path):
    """Runs the script from a starting interpreter that has this torch, and gives what it called."""

    def run(torch: str | None, version: tuple[int, int] = (3, 12)) -> list[str]:
        (tmp_path / ".ci").mkdir()
        for name in (".ci/install", ".ci/constraints.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, tmp_path / name)
        modules = tmp_path / "modules"
        modules.mkdir()
        body = "raise ImportError" if torch is None else f"__version__ = {torch!r}"
        (modules / "torch.py").write_text(body + "\n")
        script, interpreter = tmp_path / "script.py", tmp_path / "python"
        script.write_text(SCRIPT.format(modules=str(modules), version=version))
        interpreter.write_text(INTERPRETER.format(python=sys.executable, script=script))
        interpreter.chmod(0o755)
        done = subprocess.run(
            [tmp_path / ".ci/install"],
            env={**os.environ, "PYTHON": str(interpreter)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return [f"exit {done.returncode}", *done.stderr.splitlines()]
        return (tmp_path / "calls.txt").read_text().splitlines()

    return run


@pytest.mark.parametrize("torch", ["2.11.0+cu130", "2.13.0", "3.0.0a0+git1234"])
def test_a_torch_within_the_range_is_used(install, torch):
    """The environment sees the system's packages, and the constraints leave torch and its triton alone."""
    venv, pip = install(torch)
    assert venv == "venv -m venv --clear --system-site-packages .venv"
    assert pip.endswith("--editable .[transformers,dev]")


@pytest.mark.parametrize("torch", [None, "2.10.1", "1.13.1"])
def test_any_other_start_gets_the_pinned_torch(install, torch):
    """No torch, or one that is too old: an environment of its own, with every pin."""
    venv, pip, *pins = install(torch)
    assert venv == "venv -m venv --clear .venv"
    assert "--constraint .ci/constraints.txt" in pip
    assert pins == ["torch==2.13.0", "triton<=3.9.0"]


def test_an_old_python_is_told(install):
    """Before anything is made."""
    code, message = install(None, (3, 10))
    assert code == "exit 1"
    assert message.startswith("Python 3.11 or newer is needed; ")
