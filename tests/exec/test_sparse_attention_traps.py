"""Sparse attention where its ancestors failed: an index of -1, and addresses that 32 bits cannot hold."""

from __future__ import annotations

import pytest
import torch
from conformance_suite import DEVICE

from dsa_config import settings
from dsa_exec import MlaCache, sparse_mla_decode, sparse_mla_prefill
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.dispatch.registry import backends
from dsa_exec.layouts.mla_kv import MlaLayout

SCALE = 576**-0.5
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(DEVICE, torch.bfloat16)


def attempt(op, backend, *args, **kwargs):
    try:
        with settings.override(**{f"{op.__name__}_backend": backend}):
            return op(*args, **kwargs)
    except UnsupportedCall as refusal:
        pytest.skip(str(refusal))


def check_nothing_but_the_named_rows(out, lse, alone):
    """A row of -1 gives zeros and -inf; one named row among -1 gives that row's value; nothing is NaN."""
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    assert lse[0].isneginf().all()
    torch.testing.assert_close(out[1].float(), alone.expand_as(out[1]), rtol=2e-2, atol=2e-2)
    assert not out.isnan().any()


@pytest.mark.parametrize("backend", backends("sparse_mla_prefill"))
@pytest.mark.parametrize("heads", [4, 128])
def test_t35_an_index_of_minus_one_reads_nothing_in_prefill(backend, heads):
    """T35: the row before the buffer, and the first and last of it, hold NaN and reach no sum."""
    memory = torch.full((34, 576), torch.nan, device=DEVICE, dtype=torch.bfloat16)
    kv = memory[1:33]  # -1 would be a row of this memory
    kv[5] = normal(576)
    indices = torch.full((2, 70), -1, dtype=torch.int32, device=DEVICE)
    indices[1, 33] = 5
    out, lse = attempt(sparse_mla_prefill, backend, normal(2, heads, 576), kv, indices, sm_scale=SCALE)
    check_nothing_but_the_named_rows(out, lse, kv[5, :512].float())


@pytest.mark.parametrize("backend", backends("sparse_mla_decode"))
@pytest.mark.parametrize("heads", [4, 128])
def test_t35_a_slot_of_minus_one_reads_nothing_in_decode(backend, heads):
    """T35: the same for the cache, all of whose other tokens are NaN."""
    memory = torch.full((66, 656), 0xFF, dtype=torch.uint8, device=DEVICE)
    data = memory[1:65]
    data[5, :512] = normal(512).to(torch.float8_e4m3fn).view(torch.uint8)
    data[5, 512:528] = torch.ones(4, device=DEVICE).view(torch.uint8)
    data[5, 528:] = normal(64).view(torch.uint8)
    slots = torch.full((2, 70), -1, dtype=torch.int32, device=DEVICE)
    slots[1, 33] = 5
    cache = MlaCache(data, MlaLayout())
    out, lse = attempt(sparse_mla_decode, backend, normal(2, heads, 576), cache, slots, sm_scale=SCALE)
    check_nothing_but_the_named_rows(out, lse, data[5, :512].view(torch.float8_e4m3fn).float())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", backends("sparse_mla_prefill"))
def test_t26_rows_beyond_two_to_the_31_elements(backend):
    """T26: row * 576 overflows int32 from row 3,728,270 on."""
    rows = 3_728_400
    kv = torch.zeros(rows, 576, dtype=torch.bfloat16, device=DEVICE)
    kv[-1] = normal(576)
    indices = torch.full((2, 64), -1, dtype=torch.int32, device=DEVICE)
    indices[1, 7] = rows - 1
    out, lse = attempt(sparse_mla_prefill, backend, normal(2, 16, 576), kv, indices, sm_scale=SCALE)
    check_nothing_but_the_named_rows(out, lse, kv[-1, :512].float())


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", backends("sparse_mla_decode"))
def test_t26_the_last_slot_of_a_cache_beyond_two_gibibytes(backend):
    """T26: slot * 656 overflows int32 from slot 3,273,603 on."""
    slots_of_cache = 3_276_800
    cache = MlaCache(torch.zeros(slots_of_cache, 656, dtype=torch.uint8, device=DEVICE), MlaLayout())
    cache.data[-1, :512] = normal(512).to(torch.float8_e4m3fn).view(torch.uint8)
    cache.data[-1, 512:528] = torch.ones(4, device=DEVICE).view(torch.uint8)
    slots = torch.full((2, 64), -1, dtype=torch.int32, device=DEVICE)
    slots[1, 7] = slots_of_cache - 1
    out, lse = attempt(sparse_mla_decode, backend, normal(2, 16, 576), cache, slots, sm_scale=SCALE)
    check_nothing_but_the_named_rows(out, lse, cache.data[-1, :512].view(torch.float8_e4m3fn).float())
