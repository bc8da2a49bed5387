"""Decode scores of keys in the cache, beside deep_gemm."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.ops.work import Bar, Work, relative_error
from dsa_exec import IndexKCache, paged_mqa_logits
from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.layouts.views import read_index_keys

LAYOUT = IndexKLayout()
POOL_PAGES = 128 * 1024


class Scores(NamedTuple):
    """Arguments of both."""

    q: torch.Tensor
    cache: IndexKCache
    head_weights: torch.Tensor
    context_lens: torch.Tensor
    page_table: torch.Tensor


@functools.cache
def pool(page_count: int, device: str) -> IndexKCache:
    """A cache of so many pages, filled with random keys."""
    data = torch.empty(page_count, LAYOUT.page_bytes, dtype=torch.uint8, device=device)
    generator = torch.Generator(device).manual_seed(0)
    for pages in data.split(8192):
        keys = torch.randn(len(pages), LAYOUT.scales_offset_bytes, device=device, generator=generator)
        pages[:, : LAYOUT.scales_offset_bytes] = keys.to(E4M3).view(torch.uint8)
        scales = torch.rand(len(pages), LAYOUT.page_tokens, device=device, generator=generator) + 0.5
        pages[:, LAYOUT.scales_offset_bytes :] = scales.view(torch.uint8)
    return IndexKCache(data, LAYOUT)


def inputs(
    requests: int, context: int, next_n: int, heads: int, page_count: int = POOL_PAGES, device: str = "cuda"
) -> Callable[[int], Scores]:
    """A step over requests of one length, by a seed; their pages lie anywhere in a pool, each in one request.

    Args:
        requests: how many.
        context: positions that each of their rows sees, whole pages.
        next_n: rows of a request.
        heads: of the index.
        page_count: pages of the pool, `requests * context / 64` at least. By default 8 million tokens.
        device: where.
    """

    def make(seed: int) -> Scores:
        generator = torch.Generator(device).manual_seed(seed + 1)
        pages = context // LAYOUT.page_tokens
        table = torch.randperm(page_count, device=device, generator=generator)[: requests * pages]
        return Scores(
            torch.randn(requests, next_n, heads, 128, device=device, generator=generator).to(E4M3),
            pool(page_count, device),
            torch.randn(requests * next_n, heads, device=device, generator=generator),
            torch.full((requests, next_n), context, dtype=torch.int32, device=device),
            table.to(torch.int32).view(requests, pages),
        )

    return make


def _ours(it: Scores) -> torch.Tensor:
    width = it.page_table.shape[1] * LAYOUT.page_tokens
    return paged_mqa_logits(it.q, it.cache, it.head_weights, it.context_lens, it.page_table, width, clean=False)


def slots_of(it: Scores, request: int) -> torch.Tensor:
    """Where in the pool the positions of a request are, int64 [context]."""
    first = it.page_table[request].long()[:, None] * LAYOUT.page_tokens
    return (first + torch.arange(LAYOUT.page_tokens, device=first.device)).flatten()


def exact_keys(it: Scores, request: int) -> torch.Tensor:
    """The keys of a request's positions as the cache has them, f64 [context, 128]."""
    keys, scales = read_index_keys(it.cache.data, LAYOUT, slots_of(it, request))
    assert scales is not None
    return keys.double() * scales.double()[:, None]


def _wrong(it: Scores, logits: torch.Tensor) -> str | None:
    requests, next_n = it.context_lens.shape
    for request in {0, requests - 1}:
        exact = exact_keys(it, request)
        for draft in range(next_n):
            row = request * next_n + draft
            wanted = it.head_weights[row].double() @ (it.q[request, draft].double() @ exact.T).relu()
            error = relative_error(logits[row], wanted)
            if not error < 5e-4:
                return f"row {row} is off by {error:.1e}"
    return None


def deep_gemm() -> Callable[[Scores], Any]:
    """Scores of its kernel, by a schedule that is made outside."""
    vendor = importlib.import_module("deep_gemm")
    processors = torch.cuda.get_device_properties().multi_processor_count
    schedules: dict[int, Any] = {}

    def run(it: Scores) -> Any:
        # Its schedule is made once a step and used by every layer.
        if id(it) not in schedules:
            made = vendor.get_paged_mqa_logits_metadata(it.context_lens, LAYOUT.page_tokens, processors)
            schedules[id(it)] = (it, made)
        data = it.cache.data.view(-1, LAYOUT.page_tokens, 1, LAYOUT.token_bytes)
        width = it.page_table.shape[1] * LAYOUT.page_tokens
        return vendor.fp8_paged_mqa_logits(
            it.q, data, it.head_weights, it.context_lens, it.page_table, schedules[id(it)][1], width, clean_logits=False
        )

    return run


def works() -> Iterator[Work]:
    """Decode steps from one request to many, and two rows a request."""
    bars = {(1, 65536, 1): Bar(ratio=1.10), (128, 65536, 1): Bar(ratio=1.10)}
    for requests, context, next_n in ((1, 65536, 1), (32, 65536, 1), (128, 65536, 1), (128, 65536, 2), (128, 8192, 1)):
        tokens = requests * context
        yield Work(
            op="paged_mqa_logits",
            name=f"{requests}x{context}, next_n {next_n}, 64 heads",
            inputs=inputs(requests, context, next_n, 64),
            ours=_ours,
            wrong=_wrong,
            min_bytes=tokens * (LAYOUT.token_bytes + 4 * next_n),
            flops=2.0 * tokens * next_n * 64 * 128,
            unit="fp8",
            vendors={"deep_gemm": deep_gemm},
            bar=bars.get((requests, context, next_n)),
        )
