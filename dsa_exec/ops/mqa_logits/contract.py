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
    channels: int = 128,
    dtype: torch.dtype = E4M3,
    zero_keys: bool = False,
    strided_out: bool = False,
    clean: bool = True,
    unseen: slice = slice(0),
) -> Make:
    """Arguments for rows of these windows; `unseen` are keys outside all of them, NaN and with NaN for scales."""

    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        rows = len(windows)
        keys = normal(generator, device, key_count, channels)
        keys[unseen] = torch.nan
        args: dict[str, Any] = {
            "q": normal(generator, device, rows, heads, channels).to(dtype),
            "keys": (torch.zeros_like(keys) if zero_keys else keys).to(dtype),
            "scales": normal(generator, device, key_count).abs() + 0.1 if dtype is E4M3 else None,
            "head_weights": normal(generator, device, rows, heads),
            "starts": index(device, *(start for start, _ in windows)),
            "ends": index(device, *(end for _, end in windows)),
            "clean": clean,
        }
        if args["scales"] is not None:
            args["scales"][unseen] = torch.nan
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
_EDGES = ((0, 1030), (511, 514), (512, 640), (1023, 1025), (640, 513), (500, 530))  # about multiples of 64, 128 and 512
_FAR = ((0, 3), (1190, 1200), (600, 605), (700, 701), (3, 3))  # one block of rows: what lies between is not computed

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
        Case("f16", _score(_CAUSAL, 14, dtype=torch.float16)),
        Case("one row", _score([(1, 130)], 131)),
        Case("across chunks", _score(_EDGES, 1030, heads=2)),
        Case("across chunks, not cleaned", _score(_EDGES, 1030, heads=2, clean=False, strided_out=True)),
        Case("windows far apart", _score(_FAR, 1200, heads=3)),
        Case("windows at the end", _score([(70, 70), (0, 70), (69, 70), (70, 69)], 70)),
        Case("1 head", _score(_CAUSAL, 14, heads=1)),
        Case("12 heads", _score(_CAUSAL, 14, heads=12)),
        Case("128 heads", _score(_CAUSAL, 14, heads=128)),
        Case("200 channels", _score(_CAUSAL, 14, heads=4, channels=200)),
        Case("40 channels, bf16", _score(_CAUSAL, 14, heads=4, channels=40, dtype=torch.bfloat16)),
        Case("NaN that no row sees", _score([(0, 60), (3, 40)], 90, unseen=slice(60, 90), strided_out=True)),
        Case("NaN between windows", _score([(0, 40), (130, 150)], 150, heads=64, unseen=slice(40, 130))),
        Case("NaN that no row sees, bf16", _score([(5, 9)], 12, dtype=torch.bfloat16, unseen=slice(5))),
        Case("not cleaned, into NaN", _score(_CAUSAL, 14, clean=False, strided_out=True)),
    ),
    result=_result,
    tolerance={"logits": 2e-6},
    # Hopper's matrix units sum products of e4m3 with about 14 bits: 1.3e-4 of the logits' norm, whoever wrote the
    # kernel. Of one head and 70 logits the worst is off by 5.2e-4 of the largest.
    accelerated={"logits": 1e-3},
)
