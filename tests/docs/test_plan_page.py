"""What docs/plan.md shows is what the command prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]
PAGE = (ROOT / "docs" / "plan.md").read_text("utf-8")
SHOWN = re.findall(r"^```\n\$ (dsa plan [^\n]*)\n(.*?)^```", PAGE, re.M | re.S)
CUT = " ..."


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[str(number) for number in range(len(SHOWN))])
def test_each_line_is_printed_in_its_order(command, shown):
    """Lines of three dots stand for any number of others, dots at the end of a line for its rest."""
    program = [sys.executable, "-c", "from dsa_exec.cli import main; main()", *shlex.split(command)[1:]]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    printed = iter([line.rstrip() for line in done.stdout.splitlines()])
    for line in shown.splitlines():
        if line == CUT.strip():
            continue
        if line.endswith(CUT):
            start = line.removesuffix(CUT)
            assert any(other.startswith(start) for other in printed), line
        else:
            assert line in printed, line


def test_there_is_something_shown():
    """A page whose blocks are written otherwise does not leave this file without a test."""
    assert len(SHOWN) == 4
