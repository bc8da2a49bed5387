"""Steps of the indexer, scores and selection together, beside deep_gemm's scores and SGLang's fast_topk.

The peers' selection stays positions in decode, where ours becomes slots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.ops import mqa_logits_work, paged_mqa_logits_work, topk_work
from benchmarks.ops.paged_mqa_logits_work import LAYOUT, POOL_PAGES, exact_keys, slots_of
from benchmarks.ops.selection import positions_of, wrong_by_logits, wrong_by_scores
from benchmarks.ops.work import Bar, Work
from dsa_exec import GatheredKeys, PagedKeys, index_select, mqa_logits, paged_mqa_logits
from dsa_exec.core.numerics import E4M3

K = topk_work.K
CHANNELS = 128
PEER = "deep_gemm + SGLang fast_topk"
JUDGED_ROWS = 16
"""Rows in a part of a prefill whose logits are made again to judge the selection."""


class Step(NamedTuple):
    """Arguments of a prefill step."""

    q: torch.Tensor
    keys: torch.Tensor
    scales: torch.Tensor
    head_weights: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor


def prefill(
    rows: int,
    keys: int,
    heads: int,
    *,
    bar: Bar | None = None,
    settings: dict[str, Any] | None = None,
    device: str = "cuda",
) -> Work:
    """The last rows of a context.

    Args:
        rows: how many.
        keys: tokens of the context.
        heads: of the index.
        bar: what ours must reach.
        settings: what ours runs under.
        device: where.
    """
    seen = visible(rows, keys)
    return Work(
        op="index_select",
        name=f"prefill {rows}x{keys}, {heads} heads",
        inputs=_steps(rows, keys, heads, device),
        ours=lambda it: (
            index_select(it.q, it.head_weights, GatheredKeys(it.keys, it.scales, it.starts, it.ends), K).indices
        ),
        wrong=_wrong_gathered,
        min_bytes=rows * (heads * (CHANNELS + 4) + K * 4) + keys * LAYOUT.token_bytes,
        flops=2.0 * seen * heads * CHANNELS,
        unit="fp8",
        vendors={PEER: _peer_of_gathered},
        bar=bar,
        settings=settings or {},
        weighed=True,
    )


def visible(rows: int, keys: int) -> int:
    """How many pairs of a query and a key that it sees the last rows of a context have."""
    return rows * (2 * keys - rows + 1) // 2


def decode(
    requests: int,
    context: int,
    next_n: int,
    heads: int,
    *,
    bar: Bar | None = None,
    page_count: int = POOL_PAGES,
    device: str = "cuda",
) -> Work:
    """A step over requests of one length, as replays.

    Args:
        requests: how many.
        context: positions that each of their rows sees.
        next_n: rows of a request.
        heads: of the index.
        bar: what ours must reach.
        page_count: pages of the pool that the requests' are taken from.
        device: where.
    """
    rows, tokens = requests * next_n, requests * context
    return Work(
        op="index_select",
        name=f"decode {requests}x{context}, next_n {next_n}, {heads} heads",
        inputs=paged_mqa_logits_work.inputs(requests, context, next_n, heads, page_count, device),
        ours=lambda it: (
            index_select(it.q, it.head_weights, PagedKeys(it.cache, it.page_table, it.context_lens), K).indices
        ),
        wrong=_wrong_paged,
        min_bytes=tokens * LAYOUT.token_bytes + rows * (heads * (CHANNELS + 4) + K * 4),
        flops=2.0 * tokens * next_n * heads * CHANNELS,
        unit="fp8",
        vendors={PEER: _peer_of_paged},
        captured=True,
        bar=bar,
        weighed=True,
    )


def _steps(rows: int, keys: int, heads: int, device: str) -> Callable[[int], Step]:
    def make(seed: int) -> Step:
        generator = torch.Generator(device).manual_seed(seed)
        q = torch.empty(rows, heads, CHANNELS, dtype=E4M3, device=device)
        for part in q.split(4096):  # in f32 they are four times as large
            part.copy_(torch.randn(part.shape, device=device, generator=generator))
        ends = torch.arange(keys - rows + 1, keys + 1, dtype=torch.int32, device=device).clamp(min=1)
        return Step(
            q,
            torch.randn(keys, CHANNELS, device=device, generator=generator).to(E4M3),
            torch.rand(keys, device=device, generator=generator) + 0.5,
            torch.randn(rows, heads, device=device, generator=generator),
            torch.zeros_like(ends),
            ends,
        )

    return make


def _wrong_gathered(it: Step, picked: torch.Tensor) -> str | None:
    exact, rows = it.keys.double() * it.scales.double()[:, None], it.q.shape[0]
    for begin in sorted({0, max(rows // 2 - JUDGED_ROWS, 0), max(rows - JUDGED_ROWS, 0)}):
        part = slice(begin, min(begin + JUDGED_ROWS, rows))
        windows = it.starts[part], it.ends[part]
        logits = mqa_logits(it.q[part], it.keys, it.scales, it.head_weights[part], *windows, clean=False)
        for row in range(part.start, part.stop):
            start, end = int(it.starts[row]), int(it.ends[row])
            sentence = wrong_by_logits(logits[row - begin, start:end], picked[row], K)
            if row in (part.start, part.stop - 1):
                products = (it.q[row].double() @ exact[start:end].T).relu()
                sentence = wrong_by_scores(it.head_weights[row].double() @ products, picked[row], K) or sentence
            if sentence is not None:
                return f"row {row} {sentence}"
    return None


def _wrong_paged(it: paged_mqa_logits_work.Scores, picked: torch.Tensor) -> str | None:
    requests, next_n = it.context_lens.shape
    judged = sorted({0, requests - 1})
    rows = [request * next_n + draft for request in judged for draft in range(next_n)]
    lens, table = it.context_lens[judged], it.page_table[judged]
    width = table.shape[1] * LAYOUT.page_tokens
    q = it.q.view(torch.uint8)[judged].view(E4M3)  # of e4m3 not every torch picks rows
    logits = paged_mqa_logits(q, it.cache, it.head_weights[rows], lens, table, width, clean=False)
    for request in judged:
        slots, exact = slots_of(it, request), exact_keys(it, request)
        for draft in range(next_n):
            row, seen = request * next_n + draft, int(it.context_lens[request, draft])
            positions = positions_of(slots[:seen], picked[row])
            products = (it.q[request, draft].double() @ exact[:seen].T).relu()
            sentence = wrong_by_scores(it.head_weights[row].double() @ products, positions, K)
            sentence = sentence or wrong_by_logits(logits[rows.index(row), :seen], positions, K)
            if sentence is not None:
                return f"row {row} {sentence}"
    return None


def _peer_of_gathered() -> Callable[[Step], Any]:
    scores, picks = mqa_logits_work.deep_gemm(), topk_work.fast_topk()
    return lambda it: picks((scores(it), it.ends))  # every window begins at the first key


def _peer_of_paged() -> Callable[[paged_mqa_logits_work.Scores], Any]:
    scores, picks = paged_mqa_logits_work.deep_gemm(), topk_work.fast_topk()
    return lambda it: picks((scores(it), it.context_lens.view(-1)))


def works() -> Iterator[Work]:
    """Steps of a long prefill and a short one, by `auto` and by the fused kernel; decode of one request to many."""
    bars = {
        (4096, 65536): Bar(ratio=0.85, extra_mib=64),
        (8192, 131072): Bar(ratio=0.85, extra_mib=96),
        (4096, 4096): Bar(ratio=0.95),
    }
    for (rows, keys), bar in bars.items():
        yield prefill(rows, keys, 64, bar=bar)
        yield prefill(rows, keys, 64, settings={"index_select_backend": "gluon"})
    # Microseconds are the same shares of what the best peers take, flashinfer's top-k among them, which is not here.
    for requests, ratio, us in ((1, 0.65, 17.4), (32, 0.9, 130), (128, 0.93, 420)):
        yield decode(requests, 65536, 1, 64, bar=Bar(ratio=ratio, us=us))
