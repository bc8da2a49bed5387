"""Kernels that the interpreter of the CPU cannot run, or might run otherwise, are built for Hopper."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hopper_builds import BUILDS

SHARED_BYTES = 227 * 1024
"""What a block of Hopper can have of shared memory."""


@functools.cache
def built() -> dict[str, int | str]:
    """What each kernel takes of shared memory, or why it is not built; in a process without the interpreter."""
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).parents[1] / "hopper_builds.py"
    command = [sys.executable, "-W", "ignore", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, int | str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", BUILDS)
def test_the_kernel_is_built_for_hopper_and_fits(name):
    """Compiled to machine code for sm90, within the shared memory of a block."""
    shared_bytes = built()[name]
    assert isinstance(shared_bytes, int), shared_bytes
    assert shared_bytes <= SHARED_BYTES
