"""Stores write the rows that have a slot, leave all else as it was, and never wait for the device."""

from __future__ import annotations

import pytest
import torch
from live_tensors import Watch

import dsa_exec
from dsa_exec.caches.samples import poisoned_index_k_cache, poisoned_mla_cache
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.mla_kv import MlaLayout
from dsa_exec.ops import index_store, kv_store
from dsa_exec.ops.index_store.on_torch import BACKEND as INDEX_STORE
from dsa_exec.ops.kv_store.on_torch import BACKEND as KV_STORE

CPU = torch.device("cpu")
WAITS = {"aten.nonzero", "aten._local_scalar_dense", "aten.item", "aten.masked_select", "aten.is_nonzero"}
INDEX_LAYOUTS = [IndexKLayout(), IndexKLayout(order="preshuffled"), IndexKLayout("model", element_bytes=4)]
MLA_LAYOUTS = [MlaLayout(), MlaLayout("model", latent_dim=32, rope_dim=16, element_bytes=4)]
SLOTS = [
    [-1, 5, -1, 70, -1],  # padding before, between and after
    [-1, -1, -1, -1, 5],
    [-1, 0, -1, -1, 1],  # slot 0 is a slot like any other
    [128, 5, 2**31, -(2**31), 70],  # what the cache does not have, unchecked
    [-1, -1, -1, -1, -1],
    [128, -1, 999, -1, -7],
]


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def index_call(layout: IndexKLayout, slots: list[int]) -> tuple[torch.Tensor, index_store.Call]:
    cache = poisoned_index_k_cache(layout, 2, CPU)
    return cache.data, index_store.Call(cache, random(len(slots), 128), torch.tensor(slots))


def kv_call(layout: MlaLayout, slots: list[int]) -> tuple[torch.Tensor, kv_store.Call]:
    cache = poisoned_mla_cache(layout, 2, CPU)
    latent, rope = random(len(slots), layout.latent_dim), random(len(slots), layout.rope_dim)
    return cache.data, kv_store.Call(cache, latent, rope, torch.tensor(slots))


CALLS = [(INDEX_STORE, index_call, layout) for layout in INDEX_LAYOUTS] + [
    (KV_STORE, kv_call, layout) for layout in MLA_LAYOUTS
]


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize(("backend", "make", "layout"), CALLS)
def test_only_rows_with_a_slot_write(backend, make, layout, slots):
    """The cache holds to the bit what writing the rows that have a slot, one by one, makes of it."""
    data, call = make(layout, slots)
    expected, one_by_one = make(layout, slots)
    for row, slot in enumerate(slots):
        if 0 <= slot < 128:
            cut = {
                name: getattr(one_by_one, name)[row : row + 1]
                for name in one_by_one.__dataclass_fields__
                if name != "cache"
            }
            backend.run(type(one_by_one)(one_by_one.cache, **cut))
    with Watch() as watch:
        backend.run(call)
    assert torch.equal(data.view(torch.uint8), expected.view(torch.uint8))
    assert WAITS.isdisjoint(watch.calls)


def test_gradients_pass_only_to_rows_that_are_stored():
    """In the model format each stored row has the gradient of its slot, once; padding has none."""
    layout = MLA_LAYOUTS[1]
    cache = poisoned_mla_cache(layout, 1, CPU)
    latent, rope = random(4, 32).requires_grad_(), random(4, 16).requires_grad_()
    dsa_exec.kv_store(cache, latent, rope, torch.tensor([-1, 3, -1, 1]))
    cache.data[[1, 3]].sum().backward()
    assert latent.grad[:, 0].tolist() == [0, 1, 0, 1]
    assert rope.grad[:, 0].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("layout", INDEX_LAYOUTS)
def test_index_keys_keep_no_graph(layout):
    """Keys that require gradients are stored without them, however often."""
    cache = poisoned_index_k_cache(layout, 1, CPU)
    for slot in range(3):
        dsa_exec.index_store(cache, random(1, 128).requires_grad_(), torch.tensor([slot]))
    assert not cache.data.requires_grad
    keys, _ = dsa_exec.index_gather(cache, torch.zeros(1, 1, dtype=torch.int32), torch.tensor([3]))
    assert not keys.requires_grad


def test_quantised_tokens_keep_no_graph():
    """Nor do tokens in the fp8 format, and storing them saves nothing for a backward pass."""
    cache = poisoned_mla_cache(MlaLayout(), 1, CPU)
    peaks = []
    for requires_grad in (False, True):
        latent, rope = random(8, 512).requires_grad_(requires_grad), random(8, 64).requires_grad_(requires_grad)
        with Watch() as watch:
            dsa_exec.kv_store(cache, latent, rope, torch.arange(8))
        peaks.append(watch.peak_bytes)
    assert not cache.data.requires_grad
    assert peaks[0] == peaks[1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize(("backend", "make", "layout"), CALLS)
def test_stores_are_captured_in_a_graph(backend, make, layout, slots):
    """A replay writes what the same call on the CPU writes, with the slots of the moment."""
    data, call = make(layout, slots)
    moved = type(call.cache)(call.cache.data.cuda(), layout)
    args = {name: getattr(call, name).cuda() for name in call.__dataclass_fields__ if name != "cache"}
    resident = type(call)(moved, **args)
    backend.run(resident)  # warm
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        backend.run(resident)
    moved.data.copy_(data)
    graph.replay()
    backend.run(call)
    assert torch.equal(moved.data.cpu().view(torch.uint8), data.view(torch.uint8))
