"""A prefill over the FP8 cache as it is, beside one that gathers it as bf16 first: what a layer pays for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.ops.attention_work import LAYOUT, SCALE, VALUES, WIDTH, K, mla_cache, picks
from benchmarks.ops.work import Work, relative_error
from dsa_exec import MlaCache
from dsa_exec.layouts.views import read_mla_tokens
from dsa_exec.runtime.attend import attend
from dsa_exec.runtime.attention_path import AttentionPath, Way
from dsa_exec.runtime.query_rows import QueryRows, query_rows

ROWS = 4096


class Batch(NamedTuple):
    """Arguments of a layer: one request, whose last rows are new."""

    q: torch.Tensor
    cache: MlaCache
    selected: torch.Tensor
    rows: QueryRows


def _inputs(context: int, heads: int) -> Callable[[int], Batch]:
    def make(seed: int) -> Batch:
        generator = torch.Generator("cuda").manual_seed(seed)
        cache = mla_cache()
        pages = torch.randperm(cache.slots // LAYOUT.page_tokens, device="cuda", generator=generator)
        pages = pages[: context // LAYOUT.page_tokens].int()
        lens = torch.tensor([context], dtype=torch.int32, device="cuda")
        rows = query_rows(pages[None], torch.full_like(lens, ROWS), lens, rows=ROWS, total_tokens=context)
        q = torch.randn(ROWS, heads, WIDTH, device="cuda", generator=generator).bfloat16()
        return Batch(q, cache, picks(generator, ROWS, context).int(), rows)

    return make


def _by(way: Way) -> Callable[[Batch], Any]:
    path = AttentionPath(way, "prefill", "fp8", "measured")
    return lambda it: attend(path, it.q, it.cache, it.selected, it.rows, sm_scale=SCALE)


def _wrong(it: Batch, result: Any) -> str | None:
    for row in (0, ROWS - 1):
        picked = it.selected[row].long()
        slots = it.rows.page_table[0, picked // LAYOUT.page_tokens].long() * LAYOUT.page_tokens
        tokens = read_mla_tokens(it.cache.data, LAYOUT, slots + picked % LAYOUT.page_tokens).double()
        weights = torch.softmax(it.q[row].double() @ tokens.T * SCALE, dim=1)
        error = relative_error(result[0][row], weights @ tokens[:, :VALUES])
        if not error < 1e-2:
            return f"row {row} is off by {error:.1e}"
    return None


def works() -> Iterator[Work]:
    """4096 new rows after as many tokens and after many."""
    for context in (8192, 65536):
        for heads in (16, 128):
            yield Work(
                op="attend",
                name=f"prefill {ROWS}x{context} over the FP8 cache, {heads} heads",
                inputs=_inputs(context, heads),
                ours=_by("fp8_kv"),
                wrong=_wrong,
                min_bytes=context * LAYOUT.token_bytes + ROWS * (heads * (WIDTH + VALUES) * 2 + K * 4),
                flops=2.0 * ROWS * heads * K * (WIDTH + VALUES),
                unit="bf16",
                vendors={"gathered as bf16 (sparse_bf16)": lambda: _by("sparse_bf16")},
            )
