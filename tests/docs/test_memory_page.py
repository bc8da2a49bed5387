"""What docs/memory.md quotes is what comes, and its numbers are those of the code."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
import torch

import dsa_exec
from dsa_config import settings
from dsa_exec.cli.report import LogitsUse
from dsa_exec.cli.show_report import _logits
from dsa_exec.core.errors import OutOfMemory
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.core.logits_workspace import ALIGNED_LOGITS, LOGIT_BYTES
from dsa_exec.dispatch import chunked
from dsa_exec.dispatch.chunked import run_in_chunks
from dsa_exec.memory.chunk_plan import WORKSPACE_BYTES, ChunkPlan
from dsa_exec.memory.logits_budget import ASKED_ELEMENTS, LogitsBudget, logits_budget
from dsa_exec.ops.index_select import chunks, on_torch
from dsa_exec.ops.paged_mqa_logits import on_aiter as paged_aiter
from dsa_exec.ops.topk import on_aiter
from dsa_exec.ops.topk import on_torch as topk_in_torch

PAGE = (Path(dsa_exec.__file__).parents[1] / "docs" / "memory.md").read_text("utf-8")
MESSAGES = [cells.split("|")[1] for cells in re.findall(r"^\|.*\|$", PAGE.split("## The budget")[0], re.M)][2:]
CUDA = torch.device("cuda", 0)
USE = {
    "budget_bytes": 300_000,
    "static_bytes": 10**9,
    "live_bytes": None,
    "cap_bytes": None,
    "rows": 10,
    "row_bytes": 524_288,
    "chunks": 10,
    "chunk_bytes": 532_504,
    "least_bytes": 532_504,
    "is_too_small": True,
    "calls": 1,
    "retries": 3,
}


@pytest.fixture(autouse=True)
def _nothing_was_said(monkeypatch):
    monkeypatch.setattr(chunks, "_said", set())
    monkeypatch.setattr(chunked, "_said", set())
    monkeypatch.setattr(chunked, "release_memory", lambda _: None)
    monkeypatch.setattr(chunked, "memory_reading", lambda _: MemoryReading(2**36, 131_072))


def expect_quoted(told: str) -> None:
    """One of the messages in the first table is this; three dots stand for anything."""
    quotes = [quote for message in MESSAGES for quote in re.findall(r"`([^`]+)`", message)]
    patterns = [".*".join(re.escape(part) for part in quote.split("...")) for quote in quotes if " " in quote]
    assert [pattern for pattern in patterns if re.search(pattern, told)], told


def out_of_memory(units: int, most: int, needed: int, **options):
    """Rows of which only so many fit."""

    def work(part: slice) -> None:
        if part.stop - part.start > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    run_in_chunks("index_select", units, units, work, lambda rows: rows * needed, device=CUDA, **options)


def test_a_budget_below_a_row(caplog):
    """The first warning."""
    plan, budget = ChunkPlan(1, 532_504, 532_504, 0), LogitsBudget(300_000, 10**9, 300_000, None)
    chunks._report_too_small(CUDA, plan, budget, 1)
    expect_quoted(caplog.records[0].getMessage())


def test_memory_that_ran_out(caplog):
    """The second warning."""
    with caplog.at_level(logging.WARNING):
        out_of_memory(512, 64, 532_504)
    expect_quoted(caplog.records[0].getMessage())


def test_memory_that_is_not_there():
    """The error, with its numbers."""
    with pytest.raises(OutOfMemory) as caught:
        out_of_memory(256, 0, 532_504)
    expect_quoted(str(caught.value))


def test_notes_on_the_errors_of_others():
    """In a capture, and with the setting off."""
    for options, on in (({"capturing": True}, True), ({}, False)):
        with settings.override(retry_out_of_memory=on), pytest.raises(torch.OutOfMemoryError) as caught:
            out_of_memory(8, 4, 1, **options)
        (note,) = caught.value.__notes__
        expect_quoted(note)


def test_lines_of_the_report():
    """Those of `dsa run`."""
    told = _logits(LogitsUse(**USE)).splitlines()
    assert len(told) == 3
    for line in told[1:]:
        expect_quoted(line)


def test_the_table_of_budgets():
    """Each row by the function, from its own numbers."""
    rows = re.findall(
        r"^\| (?:\d|the same).*?\| (\d+) \| (\S+) \| (\d+|does not count) \| (\d+) \| (\d*) ?\| (\d+) \|$",
        PAGE.replace("not set", "-"),
        re.M,
    )
    assert len(rows) == 3
    for (total, static, free, *wanted), cap in zip(rows, (0, 0, 268_435_456), strict=True):
        found = logits_budget(
            MemoryReading(int(total), int(free) if free.isdecimal() else 0),
            free_mem_fraction=settings.mqa_logits_free_mem_fraction,
            mem_fraction_static=None if static == "-" else float(static),
            max_chunk_bytes=cap,
            capturing=not free.isdecimal(),
        )
        told = found.static_bytes, "" if found.live_bytes is None else found.live_bytes, found.bytes
        assert [str(number) for number in told] == wanted


def test_numbers_in_words():
    """The constants that the page names."""
    mib = 2**20
    assert f"below {ASKED_ELEMENTS:,} of them" in PAGE
    assert 512 * mib == WORKSPACE_BYTES
    assert ALIGNED_LOGITS * LOGIT_BYTES == 128
    assert f"another `{on_torch.PICK_BYTES} k` a row" in PAGE
    assert (64 * mib, 256 * mib) == (topk_in_torch.SCRATCH_BYTES, on_aiter.SCRATCH_BYTES)
    assert 64 * mib == paged_aiter.SCRATCH_BYTES
