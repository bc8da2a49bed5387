"""Runs the command as a user does: another process, with the environment that the test gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


@pytest.fixture(scope="session")
def dsa() -> Callable[..., Done]:
    def run(*arguments: str, stdin: str | bytes = "", **environment: str) -> Done:
        done = subprocess.run(
            [sys.executable, "-c", "from dsa_exec.cli import main; main()", *map(str, arguments)],
            input=stdin if isinstance(stdin, bytes) else stdin.encode(),
            env={**os.environ, "COLUMNS": "200", **environment},
            capture_output=True,
            timeout=300,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def expect_sentence() -> Callable[[Done, str], None]:
    """Check that a command ended with 2 and one sentence, without a traceback, and printed nothing else."""

    def check(done: Done, *parts: str) -> None:
        assert done.code == 2, done
        assert done.out == ""
        assert "Traceback" not in done.err
        assert len(done.err.strip().splitlines()) == 1, done.err
        for part in parts:
            assert part in done.err

    return check
