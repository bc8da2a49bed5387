"""Runs the command and interrupts it at a moment that does not depend on how fast the machine is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

PROGRAM = """
import os, signal, sys
from dsa_exec.cli import main
from dsa_exec.integrations.transformers import continuation

steps = {"left": int(sys.argv.pop(1))}
take = continuation.Generation._take

def counted(self, request, logits):
    take(self, request, logits)
    steps["left"] -= 1
    if steps["left"] == 0:
        os.kill(os.getpid(), signal.SIGINT)

continuation.Generation._take = counted
main()
"""


@dataclass(frozen=True)
class Interrupted:
    """What an interrupted command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


def takes_interrupts() -> None:
    """In a child, as a terminal starts a command: in the background of a script it would ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted_after(tokens: int, *arguments: object) -> Interrupted:
    """`dsa` with some arguments, interrupted when so many tokens were chosen, those of plain transformers included."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tokens), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=takes_interrupts,
    )
    return Interrupted(done.returncode, done.stdout, done.stderr)
