"""The report of `dsa doctor` as text."""

from __future__ import annotations

import io
from collections import Counter

import pytest
import torch
from rich.console import Console

from dsa_config import settings
from dsa_config.tools.c_environment import Difference
from dsa_exec.cli.doctor import show as module
from dsa_exec.cli.doctor.environment import compared_environment
from dsa_exec.cli.doctor.examination import examine
from dsa_exec.cli.doctor.machine import assumed_capabilities
from dsa_exec.cli.doctor.report import Accelerator, Alternative, DoctorReport, Trouble

CPU = torch.device("cpu")


@pytest.fixture
def shown(monkeypatch):
    """What is printed of a report on a terminal of a width."""

    def show(report: DoctorReport, width: int = 1000) -> str:
        out = io.StringIO()
        terminal = Console(file=out, width=width, highlight=False, markup=False)
        monkeypatch.setattr(module, "console", lambda: terminal)
        module.show(report)
        return out.getvalue()

    return show


def row_of(text: str, *begin: str) -> str:
    """The line of a table that begins with these words."""
    (line,) = (it for it in text.splitlines() if it.split()[: len(begin)] == list(begin))
    return line


def test_every_part_of_the_report_is_there(shown):
    """Machine, libraries, settings, choices, alternatives, steps, pages, environment, and what is wrong, last."""
    text = shown(examine(CPU))
    parts = [
        "machine\n  cpu: ",
        "\n  memory: ",
        f", torch {torch.__version__} for ",
        "\nlibrary ",
        "\nsettings: all at their defaults\n",
        "\ntypical calls: prefill of 4096 rows over 32768 keys, decode and verification for 64 requests of ",
        "\nop ",
        "\nother backend ",
        "\ndecided once a step ",
        "\npages of a new index-K cache\n  plain, 64 tokens each: ",
        "\nenvironment\n  libraries written in C see ",
        "\nnothing is wrong\n",
    ]
    places = [text.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)
    assert text.endswith(parts[-1])


def test_settings_that_are_not_at_their_defaults(shown, monkeypatch):
    """Value and origin of each; and those that cannot be read, for which defaults are assumed."""
    monkeypatch.setenv("SGLANG_DSA_KV_FORMAT", "model")
    text = shown(examine(CPU))
    assert row_of(text, "kv_format").split(maxsplit=2)[1:] == ["model", "environment variable SGLANG_DSA_KV_FORMAT"]
    monkeypatch.setenv("SGLANG_DSA_KV_FORMAT", "int4")
    monkeypatch.setenv("SGLANG_DSA_TOPK_BACKEND", "best")
    text = shown(examine(CPU))
    assert "cannot be read, so that every use fails; defaults are assumed here: kv_format, topk_backend\n" in text
    assert "all at their defaults" not in text
    assert "its setting cannot be read; auto: " in row_of(text, "topk", "prefill;")
    assert text.endswith("2 errors\n")


def test_a_named_backend_has_its_origin(shown, monkeypatch):
    """Behind the reason; a backend that refuses shows as a failing call."""
    monkeypatch.setenv("SGLANG_DSA_TOPK_BACKEND", "torch")
    text = shown(examine(CPU))
    assert "topk_backend names it (environment variable SGLANG_DSA_TOPK_BACKEND)" in row_of(text, "topk", "prefill;")
    with settings.override(topk_backend="gluon"):
        report = examine(CPU)
    text = shown(report)
    assert " fails    topk: gluon: arch=cpu" in row_of(text, "topk", "prefill;")
    assert "\nerror: topk would fail in prefill, decode, verify (next_n=2): topk: gluon: arch=cpu" in text
    assert text.endswith(" would run it\n1 error\n")


def test_what_several_ops_have_in_common_is_told_once(shown):
    """A row for each backend and answer, with the ops; where it is not of all calls of an op, with the calls."""
    report = examine(CPU)
    other = Alternative(backend="odd", verdict="refuses", reason="no", setting=None)
    ours = Alternative(backend="own", verdict="could run", reason="slowly", setting="SGLANG_DSA_TOPK_BACKEND=own")
    ops = []
    for op in report.ops:
        calls = [call.model_copy(update={"others": []}) for call in op.calls]
        if op.op in ("kv_store", "topk"):
            some = [other, ours] if op.op == "topk" else [other]
            calls[0] = calls[0].model_copy(update={"work": ["prefill", "decode"], "others": some})
        if op.op == "topk":
            calls.append(calls[0].model_copy(update={"work": ["verify"], "others": []}))
        ops.append(op.model_copy(update={"calls": calls}))
    text = shown(report.model_copy(update={"ops": ops}))
    assert row_of(text, "odd").split() == "odd refuses: no kv_store, topk (prefill; decode)".split()
    assert "SGLANG_DSA_<OP>_BACKEND=own (slowly)" in row_of(text, "own")


def test_assumed_hardware_is_said_to_be_assumed(shown):
    """Before the first word that follows from it; an unknown number of multiprocessors is said to be."""
    text = shown(examine(CPU, assume=assumed_capabilities("sm100")))
    said = "What follows is for assumed hardware, not for this machine: sm100 with 148 multiprocessors"
    assert text.index(said) < text.index("typical calls: ")
    assert "sm120 with an unknown number of multiprocessors" in shown(
        examine(CPU, assume=assumed_capabilities("sm120"))
    )
    assert "assumed hardware" not in shown(examine(CPU))


@pytest.mark.parametrize("width", [20, 40, 80])
def test_a_narrow_terminal_loses_nothing(shown, width):
    """Cells and lines are broken; every character is there."""
    report = examine(CPU, assume=assumed_capabilities("gfx942"))
    wide, narrow = (Counter("".join(shown(report, it).split())) for it in (5000, width))
    assert wide == narrow


def test_control_characters_do_not_reach_the_terminal(shown):
    """Whatever a library's error or a variable has in it."""
    report = examine(CPU)
    trouble = Trouble(
        severity="warning", kind="x", name="x", message="bad \x1b[31m red", origin="a\x07b", suggestion=None
    )
    libraries = [report.libraries[0].model_copy(update={"reason": "\x1b]0;title\x07"})]
    text = shown(report.model_copy(update={"troubles": [trouble], "warnings": 1, "libraries": libraries}))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.endswith(
        "warning: bad \N{REPLACEMENT CHARACTER}[31m red\n  in a\N{REPLACEMENT CHARACTER}b\n1 warning\n"
    )


def test_a_gpu_with_all_that_is_told_of_it(shown):
    """Multiprocessors, ROCm, what the allocator could reuse, and the other GPUs."""
    report = examine(CPU)
    gpus = [
        Accelerator(device=f"cuda:{index}", name="MI", arch="gfx942", multiprocessors=304, total_bytes=2**30)
        for index in range(2)
    ]
    gpu = {
        "device": "cuda:1",
        "name": "MI",
        "arch": "gfx942",
        "is_hip": True,
        "multiprocessors": 304,
        "total_bytes": 2**30,
        "free_bytes": 2**29,
        "reusable_bytes": 2**20,
        "accelerators": gpus,
        "triton": None,
    }
    lines = shown(report.model_copy(update={"machine": report.machine.model_copy(update=gpu)})).splitlines()
    assert lines[1:4] == [
        "  cuda:1: MI, gfx942, 304 multiprocessors, ROCm",
        "  memory: 1.0 GiB, 512.0 MiB free, 1.0 MiB reusable",
        "  also cuda:0: MI, gfx942, 1.0 GiB",
    ]
    assert lines[4].endswith(", no Triton, which interprets kernels on the CPU") or lines[4].endswith(", no Triton")
    no_memory = report.machine.model_copy(update={"total_bytes": None, "free_bytes": None})
    assert "memory:" not in shown(report.model_copy(update={"machine": no_memory}))


def test_the_environment_in_a_line(shown, monkeypatch):
    """How many variables were compared, how many differ, or why it was not looked at."""
    report = examine(CPU)
    found = Difference("DG_X", None, None, "1")
    compared = type("Compared", (), {"names": ("A", "DG_X"), "differences": (found,)})
    monkeypatch.setattr("dsa_exec.cli.doctor.environment.compare_environments", lambda cls: compared)
    differs, troubles = compared_environment()
    text = shown(report.model_copy(update={"c_environment": differs, "troubles": troubles, "warnings": 1}))
    assert "  libraries written in C see 1 of 2 variables differently than os.environ has them (below)\n" in text
    assert "warning: DG_X is not set in os.environ, and '1' for libraries that call getenv\n" in text
    monkeypatch.setattr("dsa_exec.cli.doctor.environment.compare_environments", lambda cls: None)
    elsewhere, _ = compared_environment()
    assert "  what libraries written in C see was not looked at: on " in shown(
        report.model_copy(update={"c_environment": elsewhere})
    )
