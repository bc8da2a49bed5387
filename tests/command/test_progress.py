"""The progress bar: there where something takes longer than a second on a terminal, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

PROGRAM = """
import time
from dsa_exec.cli.progress import late_progress
with late_progress("generating", 2) as advance:
    advance()
    time.sleep({seconds})
    advance()
"""


def shown(seconds: float) -> str:
    """What the program writes to a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    command = [sys.executable, "-c", PROGRAM.format(seconds=seconds)]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, env=environment) as program:
        os.close(theirs)
        seen = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            seen += chunk
    os.close(ours)
    assert program.returncode == 0
    return seen.decode()


@pytest.mark.parametrize(("seconds", "expected"), [(1.6, True), (0.1, False)])
def test_it_comes_after_a_second(seconds, expected):
    """A bar with its count after a second; nothing for what is quicker."""
    output = shown(seconds)
    assert ("generating" in output and "1/2" in output) is expected


def test_it_keeps_away_from_files():
    """Where standard error is no terminal, nothing is written, however long it takes."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(seconds=1.6)], capture_output=True, check=True)
    assert done.stderr == b""
