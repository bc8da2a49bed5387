"""The Python in README and docs runs as it stands."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from plugin_runs import plugin

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_runs(block, tmp_path):
    """A block with tests is given to pytest, any other to Python; both must succeed."""
    file = tmp_path / "test_block.py"
    file.write_text(block)
    tests = any(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in ast.parse(block).body)
    command = ["-m", "pytest", *plugin(), "-q", "-p", "no:cacheprovider"] if tests else []
    done = subprocess.run(
        [sys.executable, *command, str(file)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
