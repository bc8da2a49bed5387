"""Dense prefill attention of whole prompts, beside sparse attention that selects all that a row sees."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.ops.work import Work, relative_error
from dsa_exec import dense_mla_prefill, sparse_mla_prefill

WIDTH, VALUES = 576, 512
SCALE = WIDTH**-0.5
REQUESTS, TOKENS = 4, 2048


class Attended(NamedTuple):
    """Arguments of both: windows for dense attention, the same as indices for sparse."""

    q: torch.Tensor
    kv: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    indices: torch.Tensor


@functools.cache
def _windows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.arange(REQUESTS * TOKENS, device="cuda", dtype=torch.int32)
    starts = rows // TOKENS * TOKENS
    indices = starts[:, None] + torch.arange(TOKENS, device="cuda", dtype=torch.int32)
    return starts, rows + 1, indices.where(indices <= rows[:, None], -1)


def _inputs(heads: int) -> Callable[[int], Attended]:
    def make(seed: int) -> Attended:
        generator = torch.Generator("cuda").manual_seed(seed)
        q = torch.randn(REQUESTS * TOKENS, heads, WIDTH, device="cuda", generator=generator).bfloat16()
        kv = torch.randn(REQUESTS * TOKENS, WIDTH, device="cuda", generator=generator).bfloat16()
        return Attended(q, kv, *_windows())

    return make


def _wrong(it: Attended, result: Any) -> str | None:
    for row in (0, TOKENS - 1, TOKENS, REQUESTS * TOKENS - 1):
        seen = it.kv[int(it.starts[row]) : int(it.ends[row])].double()
        weights = torch.softmax(it.q[row].double() @ seen.T * SCALE, dim=1)
        error = relative_error(result[0][row], weights @ seen[:, :VALUES])
        if not error < 4e-3:
            return f"row {row} is off by {error:.1e}"
    return None


def _sparse() -> Callable[[Attended], Any]:
    return lambda it: sparse_mla_prefill(it.q, it.kv, it.indices, sm_scale=SCALE)


def works() -> Iterator[Work]:
    """Prompts as long as the longest that are attended to densely."""
    rows = REQUESTS * TOKENS
    for heads in (16, 128):
        yield Work(
            op="dense_mla_prefill",
            name=f"{REQUESTS} prompts of {TOKENS}, {heads} heads",
            inputs=_inputs(heads),
            ours=lambda it: dense_mla_prefill(it.q, it.kv, it.starts, it.ends, sm_scale=SCALE),
            wrong=_wrong,
            min_bytes=rows * (heads * (WIDTH + VALUES) + WIDTH) * 2,
            flops=2.0 * rows * heads * (TOKENS + 1) / 2 * (WIDTH + VALUES),
            unit="bf16",
            vendors={"sparse_mla_prefill, all selected": _sparse},
        )
