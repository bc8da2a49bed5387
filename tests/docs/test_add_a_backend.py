"""The backend that docs/add-a-backend.md shows is one: put into its place, it passes the conformance suite."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from plugin_runs import plugin

import dsa_exec

ROOT = Path(dsa_exec.__file__).parents[1]
SHOWN = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "add-a-backend.md").read_text("utf-8"), re.M | re.S)[0]
PUT_INTO_PLACE = """
from pathlib import Path

import dsa_exec
import dsa_exec.ops.topk

here = Path(__file__).parent
dsa_exec.__path__.append(str(here))
dsa_exec.ops.topk.__path__.append(str(here / "ops" / "topk"))
"""


def test_the_backend_passes_the_suite(tmp_path):
    """As a file beside the others it has tests of its own, which pass where it does not refuse."""
    place = tmp_path / "ops" / "topk"
    place.mkdir(parents=True)
    (place / "on_sort.py").write_text(SHOWN)
    (tmp_path / "put_into_place.py").write_text(PUT_INTO_PLACE)
    suite = ["-m", "pytest", *plugin(), "-p", "put_into_place", "-q", "-p", "no:cacheprovider", "-n", "0"]
    done = subprocess.run(
        [sys.executable, *suite, str(ROOT / "tests" / "conformance"), "-k", "topk-sort"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    passed, skipped = (int(re.search(rf"(\d+) {word}", done.stdout)[1]) for word in ("passed", "skipped"))
    assert passed > 60
    assert skipped > 30
    assert "topk: sort: slots are asked for, this one gives positions (chosen by topk_backend=sort)" in done.stdout
    assert "topk: sort: 20000 columns, this one takes 4096 (chosen by topk_backend=sort)" in done.stdout
