"""Runs the command as a user does: another process, with the environment that the test gives."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
def dsa_here() -> Callable[..., Done]:
    """The same within this process, which has imported torch already: for what does not depend on a process.
    Settings are overridden.
    """

    def run(*arguments: str, stdin: str = "", **overrides: Any) -> Done:
        from typer.testing import CliRunner

        from dsa_config import settings
        from dsa_exec.cli import app

        with settings.override(**overrides):
            done = CliRunner().invoke(app, list(map(str, arguments)), input=stdin, env={"COLUMNS": "200"})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[[str], Path]:
    """A tiny checkpoint of a model type, saved once."""
    from tiny_checkpoints import save_tiny

    return functools.cache(lambda kind: save_tiny(tmp_path_factory.mktemp(kind), kind))


@pytest.fixture
def text(tmp_path) -> Path:
    """A file with a prompt."""
    from tiny_checkpoints import TEXT

    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    return file


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
