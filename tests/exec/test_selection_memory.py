"""What selection takes beside the logits: bounded scratch, and no graph for a backward pass."""

from __future__ import annotations

import pytest
import torch
from live_tensors import Watch

from dsa_exec import GatheredKeys, MemoryReading, PagedKeys, SlotMap, index_select, topk
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.logits_workspace import LogitsWorkspace, forget_workspaces
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.topk import on_torch

ROWS, WIDTH, K = 40, 500, 24
ROW_BYTES = WIDTH * on_torch.CELL_BYTES + K * on_torch.PICK_BYTES


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def windows():
    """Logits with ties, windows within the rows, and a page table to map what is picked."""
    lengths = torch.randint(0, WIDTH, (ROWS,), generator=generator(), dtype=torch.int32)
    starts = torch.randint(0, WIDTH, (ROWS,), generator=generator(), dtype=torch.int32)
    table = torch.randperm(24, generator=generator()).reshape(3, 8).to(torch.int32)
    slot_map = SlotMap(table, 64, torch.arange(ROWS) % 3)
    logits = torch.randn(ROWS, WIDTH, generator=generator()).mul(4).round()
    return {"logits": logits, "lengths": lengths, "k": K, "row_starts": starts, "slot_map": slot_map}


def test_a_small_scratch_gives_the_same_in_parts(windows, monkeypatch):
    """Rows go through in parts that the scratch holds, one at least, and the parts are put together as they were."""
    whole = topk(**windows)
    for scratch_bytes, parts in ((10 * ROW_BYTES, 4), (7 * ROW_BYTES, 6), (1, ROWS)):
        monkeypatch.setattr(on_torch, "SCRATCH_BYTES", scratch_bytes)
        with Watch() as watch:
            assert torch.equal(topk(**windows), whole)
        assert watch.calls["aten.topk"] == parts


@pytest.mark.parametrize("k", [24, 480, 1000])
def test_the_scratch_is_kept(windows, monkeypatch, k):
    """Whatever k is, all that lives at once fits the scratch, but for the result."""
    monkeypatch.setattr(on_torch, "SCRATCH_BYTES", 100_000)
    with Watch() as watch:
        topk(**{**windows, "k": k})
    assert watch.calls["aten.searchsorted"] > 1
    result_bytes = ROWS * k * 4
    assert watch.peak_bytes <= on_torch.SCRATCH_BYTES + result_bytes


def gathered(requires_grad: bool = False):
    q, head_weights = torch.randn(64, 8, 128, generator=generator()), torch.randn(64, 8, generator=generator())
    keys = torch.randn(1000, 128, generator=generator()).requires_grad_(requires_grad)
    bounds = torch.zeros(64, dtype=torch.int32), torch.full((64,), 1000, dtype=torch.int32)
    return (
        q.requires_grad_(requires_grad),
        head_weights.requires_grad_(requires_grad),
        GatheredKeys(keys, None, *bounds),
        16,
    )


def test_no_graph_is_built(windows):
    """Queries, weights, keys and logits that require gradients take no more memory than those that do not."""
    peaks = []
    for requires_grad in (False, True):
        arguments = gathered(requires_grad)
        forget_workspaces()
        with Watch() as watch:
            index_select(*arguments, memory=MemoryReading(2**40, 50_000))
        peaks.append(watch.peak_bytes)
    assert peaks[0] == peaks[1]
    for requires_grad in (False, True):
        with Watch() as watch:
            picked = topk(**{**windows, "logits": windows["logits"].requires_grad_(requires_grad)})
        peaks.append(watch.peak_bytes)
    assert peaks[2] == peaks[3]
    assert not picked.requires_grad


def test_one_workspace_serves_all_chunks_and_calls():
    """The logits are allocated once: chunks write over those of the chunk before, and calls over those of the last."""
    layout = IndexKLayout()
    cache = random_index_k_cache(generator(), layout, 4, torch.device("cpu"))
    paged = PagedKeys(cache, torch.tensor([[0, 1], [2, 3]], dtype=torch.int32), torch.tensor([[90], [128]]).int())
    q = torch.randn(2, 1, 8, 128, generator=generator()).to(E4M3)
    for arguments, width, chunks in ((gathered(), 1000, 64), ((q, torch.randn(2, 8), paged, 16), 128, 2)):
        forget_workspaces()
        given = []

        def noted(self, rows, columns, take=LogitsWorkspace.logits):
            given.append(take(self, rows, columns))  # noqa: B023
            return given[-1]  # noqa: B023

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LogitsWorkspace, "logits", noted)
            for _ in range(2):
                assert index_select(*arguments, memory=MemoryReading(1, 0)).chunks == chunks
        assert [tuple(it.shape) for it in given] == [(1, width)] * 2 * chunks
        assert len({it.data_ptr() for it in given}) == 1
