"""What a user's type checker sees."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib import resources

import pytest

SNIPPET = """
from dsa_config import DSASettings, settings

flag: bool = settings.fuse_topk
fraction: float = settings.mqa_logits_free_mem_fraction
limit: float | None = settings.mem_fraction_static
frozen: DSASettings = settings.snapshot()


@settings.override(fuse_topk=False)
def read(times: int) -> bool:
    return settings.fuse_topk


result: bool = read(1)
wrong: str = settings.fuse_topk
settings.fuse_tpok
read("x")
"""


def test_packages_say_that_they_are_typed():
    """Both carry the marker, so that type checkers look inside."""
    for package in ("dsa_config", "dsa_exec"):
        assert (resources.files(package) / "py.typed").is_file()


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="needs mypy, which a GPU image may lack")
def test_settings_are_typed_as_declared(tmp_path):
    """Fields have their types, decorated functions keep theirs, and mistakes are found."""
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    lines = [line.partition("snippet.py:")[2].split(":")[0] for line in done.stdout.splitlines() if ": error:" in line]
    assert lines == ["16", "17", "18"], done.stdout + done.stderr
