"""Kernels of a decode step begin while the one before them ends, and read nothing of it before it has."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dsa_exec.ops.paged_mqa_logits.launch import HopperLaunch, hopper_launch
from dsa_exec.ops.topk.launch import cluster_launch
from dsa_exec.ops.topk.many_rows_launch import many_rows_launch

OVERLAPPING = ("topk, many rows", "topk, few rows", "paged_mqa_logits, few pages")
NAMES = (*OVERLAPPING, "paged_mqa_logits")
WAIT, START_NEXT = "griddepcontrol.wait", "griddepcontrol.launch_dependents"

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")


@functools.cache
def kernels() -> dict[str, tuple[str, int]]:
    """PTX of the kernels of a decode step and a thread's registers, built in a process without the interpreter."""
    environment = {name: text for name, text in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")])
    script = (
        "import json, sys, hopper_builds as it; made = [it.BUILDS[name]() for name in sys.argv[1:]]; "
        "print(json.dumps([(one.asm['ptx'], it.registers_of(one)) for one in made]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, *NAMES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(zip(NAMES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_kernel_waits_for_the_one_before_it_reads(name):
    """In its code the wait stands before everything that reads or writes; caches may be filled before it."""
    code = kernels()[name][0].replace("cp.async.bulk.prefetch.L2", "")
    waits = code.index(WAIT)
    touched = [code.find(word) for word in ("ld.global", "st.global", "cp.async.bulk") if word in code]
    assert touched
    assert waits < min(touched)


def test_what_only_the_kernel_before_reads_is_sent_for_before_the_wait():
    """Lengths and page tables of many rows may have left the second-level cache: they come back during the wait."""
    before = kernels()["topk, many rows"][0].split(WAIT)[0]
    assert before.count("cp.async.bulk.prefetch.L2") == 2


@pytest.mark.parametrize("name", ["paged_mqa_logits", "paged_mqa_logits, few pages"])
def test_logits_let_the_selection_begin(name):
    """The kernel of logits says that the next one may come, whether or not it waits itself; if so, when it has."""
    code = kernels()[name][0]
    assert START_NEXT in code
    assert (WAIT in code) == (name in OVERLAPPING)
    assert code.find(WAIT) < code.index(START_NEXT)


@pytest.mark.parametrize(("name", "requests"), [("paged_mqa_logits", 128), ("paged_mqa_logits, few pages", 1)])
def test_programs_of_logits_share_a_multiprocessor(name, requests):
    """As many as are launched run at a time: one that comes when the others end would take as long again."""
    a_thread = -(-kernels()[name][1] // 8) * 8
    assert hopper_launch(requests, 1, 64, 65536).programs * 128 * a_thread <= 65536


def test_selection_overlaps_whatever_comes_before():
    """Top-k is launched so, unless `kernel_launch` says otherwise."""
    assert all(cluster_launch(rows, 65536).overlap for rows in (1, 24))
    assert all(many_rows_launch(rows, 65536, 2048).overlap for rows in (32, 128, 4096))


@pytest.mark.parametrize(
    ("requests", "next_n", "heads", "width", "wanted"),
    [
        (1, 1, 64, 65536, HopperLaunch(4, 4, 2, overlap=True, kept=True)),
        (8, 1, 64, 65536, HopperLaunch(5, 3, 2, overlap=True, kept=True)),
        (8, 1, 64, 65537, HopperLaunch(5, 3, 2, overlap=False, kept=True)),
        (256, 1, 32, 8192, HopperLaunch(5, 3, 2, overlap=False, kept=True)),
        (128, 1, 64, 65536, HopperLaunch(5, 3, 2, overlap=False, kept=True)),
        (160, 1, 64, 65536, HopperLaunch(5, 3, 2, overlap=False, kept=True)),
        (161, 1, 64, 65536, HopperLaunch(5, 3, 2, overlap=False, kept=False)),
        (32, 2, 32, 4096, HopperLaunch(4, 4, 2, overlap=True, kept=True)),
        (128, 2, 64, 65536, HopperLaunch(3, 4, 2, overlap=False, kept=False)),
        (128, 4, 64, 4096, HopperLaunch(2, 4, 2, overlap=True, kept=True)),
    ],
)
def test_logits_are_launched_as_was_measured(requests, next_n, heads, width, wanted):
    """Few pages overlap what comes before, and logits that the second-level cache can hold stay in it."""
    assert hopper_launch(requests, next_n, heads, width) == wanted
