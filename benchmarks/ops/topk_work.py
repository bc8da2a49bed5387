"""Top-k of rows of logits, beside SGLang's fast_topk, which is exact on ordinary inputs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.ops.work import Bar, Work
from dsa_config import settings
from dsa_exec import topk

K = 2048
NORMAL = "normal"
HARD_SIZES = 4096, 65536
HARD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "uniform in [1, 1.001]": lambda x: 1 + torch.rand_like(x) * 1e-3,
    "uniform in [100, 101]": lambda x: 100 + torch.rand_like(x),
    "all equal": lambda x: torch.full_like(x, 0.25),
    "ties": lambda x: (x * 8).round() / 8,
    "99% zero": lambda x: x * (torch.rand_like(x) < 0.01),
    "rising": lambda x: torch.arange(x.shape[1], device=x.device).float().expand_as(x).contiguous(),
    "falling": lambda x: -torch.arange(x.shape[1], device=x.device).float().expand_as(x).contiguous(),
    "lognormal": torch.exp,
}


def _inputs(rows: int, width: int, shape: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[int], Any]:
    def make(seed: int) -> Any:
        generator = torch.Generator("cuda").manual_seed(seed)
        logits = shape(torch.randn(rows, width, device="cuda", generator=generator))
        return logits, torch.full((rows,), width, dtype=torch.int32, device="cuda")

    return make


def _wrong(argument: Any, result: torch.Tensor) -> str | None:
    logits, lengths = argument
    rows = slice(0, 32)
    with settings.override(topk_backend="torch"):
        wanted = topk(logits[rows], lengths[rows], K)
    differ = int((result[rows] != wanted).any(1).sum())
    return f"{differ} of {wanted.shape[0]} rows are not exact" if differ else None


def fast_topk() -> Callable[[Any], Any]:
    """SGLang's kernel, for logits and the lengths of their rows."""
    library = os.environ.get("SGL_TOPK_LIBRARY")
    if library is None:
        raise ModuleNotFoundError("SGL_TOPK_LIBRARY names no library of sglang-kernel")
    torch.ops.load_library(library)

    def run(argument: Any) -> torch.Tensor:
        logits, lengths = argument
        picked = torch.empty(logits.shape[0], K, dtype=torch.int32, device=logits.device)
        torch.ops.sgl_kernel.fast_topk(logits, picked, lengths, None)
        return picked

    return run


def works() -> Iterator[Work]:
    """Ordinary rows of several shapes, and hard ones of the largest."""
    bars = {(4096, 65536): Bar(ratio=0.8), (32, 65536): Bar(us=29.0)}
    for rows, width in ((1, 65536), (32, 65536), (128, 65536), (4096, 4096), (4096, 65536)):
        yield _work(rows, width, NORMAL, lambda x: x, bars.get((rows, width)))
    rows, width = HARD_SIZES
    bar = Bar(ratio=0.8, of_ours=(1.5, f"{K} of {rows}x{width}, {NORMAL}"))
    for name, shape in HARD.items():
        yield _work(rows, width, name, shape, bar)


def _work(rows: int, width: int, name: str, shape: Callable[[torch.Tensor], torch.Tensor], bar: Bar | None) -> Work:
    return Work(
        op="topk",
        name=f"{K} of {rows}x{width}, {name}",
        inputs=_inputs(rows, width, shape),
        ours=lambda argument: topk(*argument, K),
        wrong=_wrong,
        min_bytes=rows * (width + K) * 4,
        vendors={"SGLang fast_topk": fast_topk},
        bar=bar,
    )
