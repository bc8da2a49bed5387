"""Settings in tests: fixtures that take values back, and a test that runs for every combination.

Run it with `pytest examples/testing`, or as a program.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from dsa_config import settings


def plan(tokens: int) -> str:
    """What an engine might do: it reads the settings when it is called."""
    chunk = settings.mqa_logits_max_chunk_bytes or "all"
    return f"{tokens} tokens, {chunk} bytes at once, top-k {'fused' if settings.fuse_topk else 'in two steps'}"


def test_in_this_context(settings_override):
    """The usual way: the values hold in the test and in tasks that it starts."""
    settings_override(fuse_topk=False)
    assert plan(5) == "5 tokens, all bytes at once, top-k in two steps"


def test_in_every_thread(settings_set):
    """For code that runs in threads of its own."""
    settings_set(mqa_logits_max_chunk_bytes=4096)
    with ThreadPoolExecutor() as pool:
        assert pool.submit(plan, 5).result() == "5 tokens, 4096 bytes at once, top-k fused"


def test_from_a_file(settings_load, tmp_path):
    """The file is loaded for this test alone."""
    file = tmp_path / "dsa.toml"
    file.write_text("fuse_topk = false\n")
    settings_load(file=file)
    assert "two steps" in plan(5)


def test_from_the_environment(monkeypatch):
    """Reads see the environment as it is now, so that pytest's own fixture is enough."""
    monkeypatch.setenv("SGLANG_DSA_FUSE_TOPK", "0")
    assert "two steps" in plan(5)


@pytest.mark.settings_matrix("fuse_topk", mqa_logits_max_chunk_bytes=[0, 4096])
def test_in_every_combination():
    """Four tests: `[fuse_topk=on-mqa_logits_max_chunk_bytes=0]` and so on."""
    assert plan(5).startswith("5 tokens")


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]))
