"""The memory of logits: kept for the next call where that is safe, and never more than the budget."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsa_exec.core import logits_workspace
from dsa_exec.core.logits_workspace import (
    LogitsWorkspace,
    forget_workspaces,
    kept_bytes,
    kept_workspace,
    workspace_row_bytes,
)

CPU, META = torch.device("cpu"), torch.device("meta")
MIB = 2**20


@pytest.fixture(autouse=True)
def _nothing_is_kept(monkeypatch):
    monkeypatch.setattr(logits_workspace, "_kept", logits_workspace._Kept())


def test_rows_begin_where_any_load_may():
    """At multiples of 128 bytes; the rest of the row is not part of the logits."""
    workspace = LogitsWorkspace(CPU)
    workspace.bound(2**20)
    logits = workspace.logits(3, 33)
    assert (logits.shape, logits.stride(), logits.dtype) == ((3, 33), (64, 1), torch.float32)
    assert workspace_row_bytes(33) == 256
    assert workspace_row_bytes(131072) == 131072 * 4
    logits.zero_()
    assert workspace.logits(0, 33).shape == (0, 33)
    assert workspace.logits(3, 0).shape == (3, 0)


def test_a_growing_context_has_few_sizes():
    """200 widths from 1K to 256K, of as many rows as a fixed number of bytes has room for: ten sizes, then none new."""
    workspace, sizes = LogitsWorkspace(META), []
    for step in range(200):
        width = 1024 + step * 1311
        workspace.bound(512 * MIB)
        rows = min(8192, 512 * MIB // workspace_row_bytes(width))
        workspace.logits(rows, width)
        sizes.append(workspace.bytes)
    assert sizes == sorted(sizes)
    assert set(sizes) <= {2**power for power in range(20, 30)}
    assert set(sizes[13:]) == {512 * MIB}


def test_it_shrinks_with_the_budget():
    """What is held beyond what the next chunks may take is let go before they are worked on."""
    workspace = LogitsWorkspace(META)
    workspace.bound(64 * MIB)
    workspace.logits(1000, 10_000)
    assert workspace.bytes == 64 * MIB
    workspace.bound(63 * MIB)
    assert workspace.bytes == 0
    workspace.logits(10, 10_000)
    assert workspace.bytes == 2**19


@given(
    calls=st.lists(
        st.tuples(st.integers(1, 500), st.integers(1, 10**5), st.integers(0, 2**28), st.booleans()), max_size=12
    )
)
def test_never_more_than_allowed_but_for_what_is_needed(calls):
    """Whatever came before: as much as the logits need, rounded up where that is allowed."""
    workspace = LogitsWorkspace(META)
    for rows, width, most, makes_own in calls:
        needed = rows * workspace_row_bytes(width)
        workspace.bound(most, own_row_bytes=needed // rows if makes_own else 0)
        logits = workspace.logits(rows, width)
        assert (logits is None) == makes_own
        assert workspace.bytes <= max(most, needed)
        assert makes_own == (workspace.bytes == 0)
        assert makes_own or workspace.bytes >= needed


def test_a_library_that_allocates_itself_is_made_room_for(monkeypatch):
    """Torch's allocator is made to hold a block of a power of two, and nothing is held by us."""
    made = []
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: made.append(args) or empty(*args, **kwargs))
    workspace = LogitsWorkspace(META)
    workspace.bound(64 * MIB, own_row_bytes=40_000)
    assert [workspace.logits(rows, 9_744) for rows in (1000, 1)] == [None, None]
    assert made == [(64 * MIB,)]
    workspace.bound(50 * MIB, own_row_bytes=40_000)
    workspace.logits(1000, 9_744)
    assert made[1:] == [(40_000_000,)]
    on_cpu = LogitsWorkspace(CPU)
    on_cpu.bound(64 * MIB, own_row_bytes=40_000)
    assert on_cpu.logits(1000, 9_744) is None
    assert len(made) == 2


def test_a_thread_has_one_for_each_device():
    """The same one at every call; another thread has its own, which goes with it."""
    mine = kept_workspace(CPU, on_cuda=False)
    assert kept_workspace(CPU, on_cuda=False) is mine
    assert kept_workspace(META, on_cuda=False) is not mine
    theirs = []
    thread = threading.Thread(target=lambda: theirs.append(kept_workspace(CPU, on_cuda=False)))
    thread.start()
    thread.join()
    assert theirs[0] is not mine


def test_what_is_kept_can_be_forgotten():
    """All of it, or that of one device; how much it was is told."""
    for device, rows in ((CPU, 100), (META, 1000)):
        workspace = kept_workspace(device, on_cuda=False)
        workspace.bound(MIB)
        workspace.logits(rows, 32)
    assert kept_bytes() == 16384 + 131072
    assert forget_workspaces(META) == 131072
    assert (kept_bytes(), kept_bytes(CPU)) == (16384, 16384)
    assert forget_workspaces() == 16384
    assert kept_bytes() == 0


def test_workspaces_of_other_streams_count_too(monkeypatch):
    """If all on a device together would hold more than the budget, those of the other streams are let go."""
    workspaces = [LogitsWorkspace(META) for _ in range(2)]
    for number, workspace in enumerate(workspaces):
        logits_workspace._kept.workspaces[META, number] = workspace
        workspace.bound(MIB)
        workspace.logits(8192, 32)
    workspaces[0].bound(MIB, 0, 2 * MIB)
    assert kept_bytes() == 2 * MIB
    workspaces[0].bound(MIB, 0, 2 * MIB - 1)
    assert [it.bytes for it in workspaces] == [MIB, 0]
    monkeypatch.setattr(logits_workspace, "MOST_KEPT", 2)
    kept_workspace(CPU, on_cuda=False)
    assert list(logits_workspace._kept.workspaces) == [(META, 1), (CPU, 0)]


@pytest.mark.parametrize("first", [True, False])
def test_inference_mode_comes_and_goes(first):
    """Memory that was made under inference_mode would refuse a write outside of it."""
    workspace = kept_workspace(CPU, on_cuda=False)
    for inference in (first, not first):
        with torch.inference_mode(inference):
            workspace.bound(MIB)
            assert workspace.logits(4, 32).fill_(1).sum() == 128
