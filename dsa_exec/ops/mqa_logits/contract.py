"""What every backend of `mqa_logits` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.contract import Case, Contract, index, normal

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]


def _score(
    windows: Sequence[tuple[int, int]],
    key_count: int,
    *,
    heads: int = 32,
    dtype: torch.dtype = E4M3,
    zero_keys: bool = False,
    strided_out: bool = False,
    clean: bool = True,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        rows = len(windows)
        keys = normal(generator, device, key_count, 128)
        args = {
            "q": normal(generator, device, rows, heads, 128).to(dtype),
            "keys": (torch.zeros_like(keys) if zero_keys else keys).to(dtype),
            "scales": normal(generator, device, key_count).abs() + 0.1 if dtype is E4M3 else None,
            "head_weights": normal(generator, device, rows, heads),
            "starts": index(device, *(start for start, _ in windows)),
            "ends": index(device, *(end for _, end in windows)),
            "clean": clean,
        }
        if strided_out:
            args["out"] = torch.full((rows, key_count + 7), torch.nan, device=device)[:, :key_count]
        return args

    return make


def _result(args: dict[str, Any], logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """The logits; where `clean` is off, what a row does not see is put to -inf here, as its value is not defined."""
    positions = torch.arange(logits.shape[1], device=logits.device)
    hidden = (positions < args["starts"][:, None]) | (positions >= args["ends"][:, None])
    return {"logits": logits if args["clean"] else logits.masked_fill(hidden, -torch.inf)}


_CAUSAL = ((0, 8), (0, 9), (0, 10), (10, 13), (10, 14))  # new tokens [3, 2] of requests of [10, 4]

CONTRACT = Contract(
    op="mqa_logits",
    cases=(
        Case("ragged", _score(_CAUSAL, 14)),
        Case("not cleaned", _score(_CAUSAL, 14, clean=False)),
        Case("across tiles", _score([(0, 300), (5, 129), (127, 128), (256, 300)], 300)),
        Case("rows that see nothing", _score([(0, 0), (7, 3), (0, 9)], 9)),
        Case("no row", _score([], 9)),
        Case("no key", _score([(0, 0)], 0)),
        Case("64 heads", _score(_CAUSAL, 14, heads=64)),
        Case("8 heads", _score(_CAUSAL, 14, heads=8)),
        Case("all equal", _score(_CAUSAL, 14, zero_keys=True)),
        Case("into rows of another stride", _score(_CAUSAL, 14, strided_out=True)),
        Case("nothing quantised", _score(_CAUSAL, 14, dtype=torch.float32)),
        Case("bf16", _score(_CAUSAL, 14, dtype=torch.bfloat16)),
    ),
    result=_result,
    tolerance={"logits": 2e-6},
)
