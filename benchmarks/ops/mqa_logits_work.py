"""Prefill scores of e4m3 keys with causal windows, beside deep_gemm."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.ops.work import Bar, Work, relative_error
from dsa_exec import mqa_logits
from dsa_exec.core.numerics import E4M3


class Scores(NamedTuple):
    """Arguments of both."""

    q: torch.Tensor
    keys: torch.Tensor
    scales: torch.Tensor
    head_weights: torch.Tensor
    starts: torch.Tensor
    ends: torch.Tensor
    out: torch.Tensor


def _inputs(rows: int, keys: int, heads: int) -> Callable[[int], Scores]:
    out = None

    def make(seed: int) -> Scores:
        nonlocal out
        generator = torch.Generator("cuda").manual_seed(seed)
        if out is None:
            out = torch.empty(rows, keys, device="cuda")  # one for all: it is as large as a gigabyte
        ends = torch.arange(keys - rows + 1, keys + 1, dtype=torch.int32, device="cuda").clamp(min=1)
        return Scores(
            torch.randn(rows, heads, 128, device="cuda", generator=generator).to(E4M3),
            torch.randn(keys, 128, device="cuda", generator=generator).to(E4M3),
            torch.rand(keys, device="cuda", generator=generator) + 0.5,
            torch.randn(rows, heads, device="cuda", generator=generator),
            torch.zeros_like(ends),
            ends,
            out,
        )

    return make


def _ours(it: Scores) -> torch.Tensor:
    return mqa_logits(it.q, it.keys, it.scales, it.head_weights, it.starts, it.ends, clean=False, out=it.out)


def _wrong(it: Scores, logits: torch.Tensor) -> str | None:
    keys = it.keys.double() * it.scales.double()[:, None]
    for row in (0, it.q.shape[0] // 2, it.q.shape[0] - 1):
        end = int(it.ends[row])
        products = (it.q[row].double() @ keys[:end].T).relu()
        error = relative_error(logits[row, :end], it.head_weights[row].double() @ products)
        if not error < 5e-4:
            return f"row {row} is off by {error:.1e}"
    return None


def deep_gemm() -> Callable[[Any], Any]:
    """Scores of its kernel for what has the fields of `Scores` but `out`."""
    vendor = importlib.import_module("deep_gemm")

    def run(it: Any) -> Any:
        keys = it.keys, it.scales
        return vendor.fp8_mqa_logits(it.q, keys, it.head_weights, it.starts, it.ends, clean_logits=False)

    return run


def works() -> Iterator[Work]:
    """Steps of a long prefill, and a short one."""
    for rows, keys, heads in ((4096, 65536, 64), (4096, 65536, 32), (4096, 4096, 64), (8192, 131072, 64)):
        seen = rows * (2 * keys - rows + 1) // 2
        yield Work(
            op="mqa_logits",
            name=f"{rows}x{keys}, {heads} heads",
            inputs=_inputs(rows, keys, heads),
            ours=_ours,
            wrong=_wrong,
            min_bytes=rows * heads * (128 + 4) + keys * 132 + seen * 4,
            flops=2.0 * seen * heads * 128,
            unit="fp8",
            vendors={"deep_gemm": deep_gemm},
            bar=Bar(ratio=1.12) if (rows, keys, heads) == (4096, 65536, 64) else None,
        )
