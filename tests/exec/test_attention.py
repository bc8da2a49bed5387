"""Sparse attention in parts, and where there is nothing to attend to."""

from __future__ import annotations

import math

import pytest
import torch

from dsa_exec import sparse_mla_prefill
from dsa_exec.core import attention

ROWS, HEADS, WIDTH, K, KEYS = 11, 3, 24, 6, 30
ROW_BYTES = K * WIDTH * 4


@pytest.fixture
def arguments():
    generator = torch.Generator().manual_seed(0)
    indices = torch.stack([torch.randperm(KEYS, generator=generator)[:K] for _ in range(ROWS)]).int()
    return {
        "q": torch.randn(ROWS, HEADS, WIDTH, generator=generator),
        "kv": torch.randn(KEYS, WIDTH, generator=generator),
        "indices": indices,
        "sm_scale": 0.2,
        "d_v": 16,
        "attn_sink": torch.randn(HEADS, generator=generator),
    }


@pytest.mark.parametrize(
    ("scratch_bytes", "parts"), [(4 * ROW_BYTES, 3), (ROW_BYTES, 11), (ROW_BYTES - 1, 11), (1, 11)]
)
def test_a_small_scratch_gives_the_same_in_parts(arguments, monkeypatch, scratch_bytes, parts):
    """Every row is in exactly one part, one row at least in each, and the parts are put together as they were."""
    out, lse = sparse_mla_prefill(**arguments)
    monkeypatch.setattr(attention, "SCRATCH_BYTES", scratch_bytes)
    seen = []

    def rows_of(indices: torch.Tensor) -> torch.Tensor:
        seen.append(len(indices) // K)
        return arguments["kv"][indices]

    q, indices, options = (
        arguments["q"],
        arguments["indices"],
        {k: arguments[k] for k in ("sm_scale", "d_v", "attn_sink")},
    )
    parts_out, parts_lse = attention.attend_selected(q, indices, rows_of, KEYS, **options)
    assert (len(seen), sum(seen)) == (parts, ROWS)
    assert max(seen) * ROW_BYTES <= max(scratch_bytes, ROW_BYTES)
    torch.testing.assert_close(parts_out, out)
    torch.testing.assert_close(parts_lse, lse)


@pytest.mark.parametrize("sink", [-math.inf, 0.0, math.inf])
def test_a_row_that_selects_nothing_is_zero_whatever_the_sink(arguments, sink):
    """Zeros and an lse of -inf; gradients of such a row are zeros too."""
    arguments["indices"][4] = -1
    arguments["attn_sink"][:] = sink
    arguments["q"].requires_grad_()
    out, lse = sparse_mla_prefill(**arguments)
    assert not out[4].any()
    assert (lse[4] == -math.inf).all()
    out.sum().backward()
    assert not arguments["q"].grad[4].any()
    assert arguments["q"].grad.isfinite().all()
