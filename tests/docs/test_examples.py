"""Every example runs as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_runs import plugin

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]
EXAMPLES = sorted(
    path for path in (ROOT / "examples").glob("**/*.py") if path.parent.name != "trained_model"
)  # that one takes minutes on a GPU: test_trained_model.py


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT / "examples"))


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_the_example_runs(path, tmp_path):
    """From any folder, without warnings, and with something to show for it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "PYTEST_ADDOPTS": " ".join(plugin()),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""


def test_there_are_examples():
    """A folder that was moved does not leave this file without a test."""
    assert EXAMPLES
