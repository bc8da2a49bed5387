"""Rows that lie request by request need no list of their requests: a number says it, from the step down to kernels."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch

from dsa_config import settings
from dsa_exec import PagedKeys, SlotMap, index_select, topk
from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.errors import RangeError
from dsa_exec.dispatch.registry import op_function
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.index_select import on_torch
from dsa_exec.ops.topk.custom_op import topk_node

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
IS_HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton")
needs_hopper = pytest.mark.skipif(not IS_HOPPER, reason="needs a Hopper GPU")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton), pytest.param("gluon", marks=needs_hopper)]
REQUESTS, PAGES, PAGE_TOKENS = 3, 4, 16


def picks(next_n: int, width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits and lengths of so many rows a request, and a page table."""
    generator = torch.Generator().manual_seed(next_n)
    logits = torch.randn(REQUESTS * next_n, width, generator=generator)
    lengths = torch.randint(0, width + 1, (REQUESTS * next_n,), generator=generator, dtype=torch.int32)
    table = torch.randperm(99, generator=generator)[: REQUESTS * PAGES].view(REQUESTS, PAGES).to(torch.int32)
    return logits.to(DEVICE), lengths.to(DEVICE), table.to(DEVICE)


def listed(next_n: int) -> torch.Tensor:
    return torch.arange(REQUESTS, device=DEVICE).repeat_interleave(next_n)


@pytest.mark.parametrize("next_n", [1, 2, 5])
@pytest.mark.parametrize("width", [60, 5000, 20000])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_number_of_rows_says_what_a_list_of_requests_says(backend, width, next_n):
    """Slots are the same either way, on every backend; also of rows that have several blocks, or one."""
    logits, lengths, table = picks(next_n, width)
    page_tokens = width // PAGES
    with settings.override(topk_backend=backend):
        wanted = topk(logits, lengths, 16, slot_map=SlotMap(table, page_tokens, listed(next_n)))
        by_number = SlotMap(table, page_tokens, None, rows_per_request=next_n)
        assert torch.equal(topk(logits, lengths, 16, slot_map=by_number), wanted)
    assert (wanted >= 0).any()


def test_some_rows_of_a_map_keep_their_requests():
    """A part that begins within a request knows so, and its slots are those of the whole."""
    _, _, table = picks(3, 60)
    positions = torch.arange(9, device=DEVICE)[:, None].expand(9, 4) * 7
    whole = SlotMap(table, PAGE_TOKENS, None, rows_per_request=3)
    part = whole.of_rows(slice(4, 8))
    assert part.request_of_row is not None
    assert part.request_of_row.tolist() == [1, 1, 2, 2]
    assert torch.equal(part.slots(positions[4:8]), whole.slots(positions)[4:8])
    by_list = SlotMap(table, PAGE_TOKENS, listed(3))
    assert torch.equal(whole.slots(positions), by_list.slots(positions))
    assert torch.equal(by_list.of_rows(slice(4, 8)).slots(positions[4:8]), part.slots(positions[4:8]))


@pytest.mark.parametrize("next_n", [0, 1, 3, 7])
def test_rows_must_be_those_of_all_requests(next_n):
    """Six rows of three requests are two each: another number would give rows the pages of others."""
    logits, lengths, table = picks(2, 60)
    words = rf"slot_map.rows_per_request is {next_n}; wanted 6 rows over the 3 requests of slot_map.page_table"
    with pytest.raises(RangeError, match=words):
        topk(logits, lengths, 4, slot_map=SlotMap(table, PAGE_TOKENS, None, rows_per_request=next_n))


def test_the_node_of_a_graph_is_told():
    """`torch.ops.dsa.topk` takes the number in the place of the list."""
    logits, lengths, table = picks(2, 60)
    wanted = topk_node(logits, lengths, 8, None, table, PAGE_TOKENS, listed(2), 2**31)
    assert torch.equal(topk_node(logits, lengths, 8, None, table, PAGE_TOKENS, None, 2**31, 2), wanted)


@pytest.mark.parametrize("next_n", [1, 2])
def test_a_decode_step_makes_no_list_of_requests(monkeypatch, next_n):
    """Between scores and selection no kernel runs that writes which request a row is of."""
    seen: list[SlotMap] = []

    def spied(name):
        function = op_function(name)

        def call(*inputs, **options):
            seen.extend([options["slot_map"]] if name == "topk" else [])
            return function(*inputs, **options)

        return call

    monkeypatch.setattr(on_torch, "op_function", spied)
    generator = torch.Generator().manual_seed(1)
    cache = random_index_k_cache(generator, IndexKLayout(), 6, DEVICE)
    table = torch.tensor([[3, 1], [0, 5]], dtype=torch.int32, device=DEVICE)
    lens = torch.tensor([[70], [128]], dtype=torch.int32, device=DEVICE).expand(2, next_n).contiguous()
    q = torch.randn(2, next_n, 32, 128, generator=generator).to(DEVICE, torch.float8_e4m3fn)
    weights = torch.ones(2 * next_n, 32, device=DEVICE)
    with settings.override(index_select_backend="torch", fuse_topk=True):
        fused = index_select(q, weights, PagedKeys(cache, table, lens), 40).indices
        (slot_map,) = seen
        assert slot_map.request_of_row is None
        assert slot_map.rows_per_request == next_n
    monkeypatch.undo()
    with settings.override(index_select_backend="torch", fuse_topk=False):
        assert torch.equal(index_select(q, weights, PagedKeys(cache, table, lens), 40).indices, fused)
