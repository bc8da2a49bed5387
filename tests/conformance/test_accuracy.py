"""Two tolerances: against exact inputs, what the formats cost; against quantised inputs, what the arithmetic costs."""

from __future__ import annotations

import pytest
import torch
from conformance_suite import CONTRACTS, DEVICE

from dsa_config import settings
from dsa_exec import (
    IndexKCache,
    MlaCache,
    dense_mla_prefill,
    index_gather,
    index_quant,
    index_store,
    kv_gather,
    kv_store,
    mqa_logits,
    paged_mqa_logits,
    sparse_mla_decode,
    sparse_mla_prefill,
)
from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.dispatch.registry import backends

EXACT, QUANTISED = 1e-3, 5e-6
COARSER = 1.5e-5
"""Of a vendor's kernel that rounds scales, products and weights to bf16; 7.9e-6 was seen, a relative error of 0.4 %."""
ROWS, KEYS, HEADS = 8, 192, 64


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """1 - cosine-like similarity of two tensors, 0 where they are equal: half the squared relative error, if small."""
    left, right = got.double().cpu(), wanted.double().cpu()
    return 1 - 2 * float((left * right).sum()) / float((left * left + right * right).sum())


def scores(q, keys, weights):
    """Indexer scores in float64."""
    products = torch.einsum("thd,sd->ths", q.double(), keys.double()).relu()
    return torch.einsum("ths,th->ts", products, weights.double())


def attention(q, rows, indices, d_v, sm_scale):
    """Attention over selected rows in float64."""
    picked = rows.double()[indices.long()]
    weights = torch.softmax(torch.einsum("thd,tkd->thk", q.double(), picked) * sm_scale, dim=-1)
    return torch.einsum("thk,tkd->thd", weights, picked[..., :d_v])


def normal(seed: int, *shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def attempt(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except UnsupportedCall as refusal:
        pytest.skip(str(refusal))


@pytest.fixture
def index_cache():
    """Keys in a cache, as they were and as they were stored."""
    cache = IndexKCache.allocate(KEYS, device=DEVICE, model_dtype=torch.bfloat16)
    keys = normal(1, KEYS, 128)
    index_store(cache, keys, torch.arange(KEYS, device=DEVICE))
    table = torch.arange(KEYS // 64, dtype=torch.int32, device=DEVICE)[None]
    stored, scales = index_gather(cache, table, torch.tensor([KEYS], dtype=torch.int32, device=DEVICE), KEYS)
    return cache, table, keys, stored, scales


@pytest.fixture
def queries(index_cache):
    """Queries and head weights, as they were and quantised."""
    q, weights = normal(2, ROWS, HEADS, 128), normal(3, ROWS, HEADS)
    return q, weights * (HEADS**-0.5 * 128**-0.5), *index_quant(q, weights, index_cache[0].layout)


def check_scores(logits, index_cache, queries):
    _, _, keys, stored, scales = index_cache
    q, weights, q8, folded = queries
    assert difference(logits, scores(q, keys, weights)) < EXACT
    assert difference(logits, scores(q8.float(), stored.float() * scales[:, None], folded)) < QUANTISED


@pytest.mark.parametrize("backend", backends("mqa_logits"))
def test_ragged_logits(index_cache, queries, backend):
    """Prefill scores: near the exact ones, and the quantised ones but for rounding."""
    _, _, _, stored, scales = index_cache
    ends = torch.full((ROWS,), KEYS, dtype=torch.int32, device=DEVICE)
    with settings.override(mqa_logits_backend=backend):
        logits = attempt(mqa_logits, queries[2], stored, scales, queries[3], torch.zeros_like(ends), ends)
    check_scores(logits, index_cache, queries)


@pytest.mark.parametrize("backend", backends("paged_mqa_logits"))
@pytest.mark.parametrize("next_n", [1, 4])
def test_paged_logits(index_cache, queries, backend, next_n):
    """Decode scores, over the same keys in pages."""
    cache, table, *_ = index_cache
    requests = ROWS // next_n
    lens = torch.full((requests, next_n), KEYS, dtype=torch.int32, device=DEVICE)
    tables = table.repeat(requests, 1)
    q8 = queries[2].unflatten(0, (requests, next_n))
    with settings.override(paged_mqa_logits_backend=backend):
        logits = attempt(paged_mqa_logits, q8, cache, queries[3], lens, tables, KEYS)
    check_scores(logits, index_cache, queries)


@pytest.mark.parametrize("heads", [16, 128])
@pytest.mark.parametrize("backend", backends("sparse_mla_decode"))
def test_decode_attention(backend, heads):
    """Attention over the FP8 cache: near that over exact latents, and that over stored ones but for rounding."""
    cache = MlaCache.allocate(256, device=DEVICE, model_dtype=torch.bfloat16)
    latent, rope = normal(4, 256, 512, dtype=torch.bfloat16), normal(5, 256, 64, dtype=torch.bfloat16)
    slots = torch.arange(256, device=DEVICE)
    kv_store(cache, latent, rope, slots)
    table = torch.arange(4, dtype=torch.int32, device=DEVICE)[None]
    lens = torch.tensor([256], dtype=torch.int32, device=DEVICE)
    stored = kv_gather(cache, table, lens, 256, dtype=torch.float32)
    q = normal(6, 2, heads, 576, dtype=torch.bfloat16)
    picked = torch.stack([torch.randperm(256, generator=torch.Generator().manual_seed(row))[:96] for row in range(2)])
    picked = picked.to(DEVICE, torch.int32)
    with settings.override(sparse_mla_decode_backend=backend):
        out, _ = attempt(sparse_mla_decode, q, cache, picked, sm_scale=576**-0.5)
    exact = torch.cat([latent, rope], dim=1)
    assert difference(out, attention(q, exact, picked, 512, 576**-0.5)) < EXACT
    bound = COARSER if backend in CONTRACTS["sparse_mla_decode"].coarser else QUANTISED
    assert difference(out, attention(q, stored, picked, 512, 576**-0.5)) < bound


@pytest.mark.parametrize("heads", [16, 128])
@pytest.mark.parametrize("backend", backends("sparse_mla_prefill"))
def test_prefill_attention(backend, heads):
    """Attention over bf16 rows, which are exact inputs: only the arithmetic costs."""
    q, kv = normal(7, 2, heads, 576, dtype=torch.bfloat16), normal(8, 256, 576, dtype=torch.bfloat16)
    picked = torch.stack([torch.randperm(256, generator=torch.Generator().manual_seed(row))[:96] for row in range(2)])
    picked = picked.to(DEVICE, torch.int32)
    with settings.override(sparse_mla_prefill_backend=backend):
        out, _ = attempt(sparse_mla_prefill, q, kv, picked, sm_scale=576**-0.5)
    assert difference(out, attention(q, kv, picked, 512, 576**-0.5)) < QUANTISED


@pytest.mark.parametrize("heads", [16, 128])
@pytest.mark.parametrize("backend", backends("dense_mla_prefill"))
def test_dense_attention(backend, heads):
    """The same over whole windows."""
    q, kv = normal(7, 2, heads, 576, dtype=torch.bfloat16), normal(8, 256, 576, dtype=torch.bfloat16)
    starts, ends = (torch.tensor(it, dtype=torch.int32, device=DEVICE) for it in ([0, 100], [96, 196]))
    with settings.override(dense_mla_prefill_backend=backend):
        out, _ = attempt(dense_mla_prefill, q, kv, starts, ends, sm_scale=576**-0.5)
    for row in range(2):
        window = torch.arange(int(starts[row]), int(ends[row]), device=DEVICE)[None]
        assert difference(out[row], attention(q[row : row + 1], kv, window, 512, 576**-0.5)[0]) < QUANTISED
