"""What `import dsa_config` costs a cold process beyond pydantic-settings, and that it brings no torch along."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.reads.timing import Timed, summary

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import sys
from time import perf_counter_ns as clock
start = clock()
import pydantic_settings
between = clock()
import dsa_config
end = clock()
assert "torch" not in sys.modules, "import dsa_config has imported torch"
print(between - start, end - between)
"""


def timed_imports(runs: int) -> tuple[Timed, Timed]:
    """The imports of pydantic-settings and then of dsa_config, in new processes.

    Both are timed inside each process, one after the other, so that each run is its own baseline.

    Args:
        runs: how many processes; one more comes first, to write the byte code.

    Raises:
        CalledProcessError: dsa_config cannot be imported, or imports torch.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    # An installed package has its byte code; a checkout under PYTHONDONTWRITEBYTECODE would be compiled every time.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory() as byte_code:
        environment["PYTHONPYCACHEPREFIX"] = byte_code
        samples = [_run(environment) for _ in range(runs + 1)][1:]
    pydantic, ours = zip(*samples, strict=True)
    return summary(list(pydantic)), summary(list(ours))


def _run(environment: dict[str, str]) -> tuple[float, float]:
    done = subprocess.run(  # noqa: S603 - this interpreter on our own program
        [sys.executable, "-P", "-c", PROGRAM], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    pydantic, ours = map(float, done.stdout.split())
    return pydantic, ours
