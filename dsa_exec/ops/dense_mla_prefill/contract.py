"""What every backend of `dense_mla_prefill` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.dispatch.contract import Case, Contract, index, normal

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]
Windows = Sequence[tuple[int, int]]


def _attend(
    windows: Windows,
    key_count: int,
    *,
    heads: int = 4,
    width: int = 576,
    d_v: int = 512,
    dtype: torch.dtype = torch.float32,
    sink: bool = False,
    unseen: slice = slice(0),
    score_factor: float = 1.0,
) -> Make:
    """Arguments for queries of these windows; `unseen` are keys outside all of them, NaN."""

    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        kv = normal(generator, device, key_count, width, dtype=dtype)
        kv[unseen] = torch.nan
        args = {
            "q": normal(generator, device, len(windows), heads, width, dtype=dtype) * score_factor,
            "kv": kv,
            "starts": index(device, *(start for start, _ in windows)),
            "ends": index(device, *(end for _, end in windows)),
            "sm_scale": width**-0.5,
            "d_v": d_v,
        }
        if sink:
            args["attn_sink"] = normal(generator, device, heads)
            args["attn_sink"][0] = -torch.inf  # as if there were none
        return args

    return make


def _causal(*requests: tuple[int, int]) -> list[tuple[int, int]]:
    """Windows of requests of so many tokens, the last so many of them new."""
    windows, first = [], 0
    for tokens, new in requests:
        windows += [(first, first + end) for end in range(tokens - new + 1, tokens + 1)]
        first += tokens
    return windows


_SHORT = _causal((10, 3), (4, 2))
_PACKED = _causal((40, 30), (1, 1), (7, 7), (33, 2))  # 81 keys, in blocks of queries that belong to several requests
_EDGES = [(0, 130), (1, 129), (63, 65), (64, 128), (127, 128), (129, 130), (32, 97)]  # about multiples of 32 and 64
_NOTHING = [(0, 0), (7, 3), (0, 9), (9, 9), (8, 9)]
_FAR = [(0, 3), (290, 300), (150, 155), (3, 3), (299, 300)]
_BF16 = {"out": 8e-3}
"""Outputs are rounded to bf16, 2^-8, and so are the weights of kernels for it."""


def _bf16(name: str, windows: Windows, key_count: int, **options: Any) -> Case:
    return Case(name, _attend(windows, key_count, dtype=torch.bfloat16, **options), tolerance=_BF16)


CONTRACT = Contract(
    op="dense_mla_prefill",
    cases=(
        Case("ragged", _attend(_SHORT, 14)),
        Case("blocks across requests", _attend(_PACKED, 81, heads=3)),
        Case("window edges", _attend(_EDGES, 130)),
        Case("queries that see nothing", _attend(_NOTHING, 9)),
        Case("queries that see nothing, with a sink", _attend(_NOTHING, 9, sink=True)),
        Case("windows far apart", _attend(_FAR, 300, heads=2)),
        Case("one query, one head, one key", _attend([(2, 3)], 5, heads=1)),
        Case("no query", _attend([], 9)),
        Case("no key", _attend([(0, 0), (0, 0)], 0)),
        Case("all of one long request", _attend(_causal((100, 100)), 100, heads=1)),
        Case("12 heads", _attend(_SHORT, 14, heads=12)),
        Case("128 heads", _attend([(0, 70), (3, 50)], 70, heads=128)),
        Case("attention sink", _attend(_PACKED[:9], 81, heads=8, sink=True)),
        Case("NaN between windows", _attend([(0, 40), (3, 20), (64, 90)], 140, unseen=slice(40, 64))),
        Case("NaN after the windows", _attend([(5, 70), (5, 69)], 90, unseen=slice(70, 90), sink=True)),
        Case("NaN before the windows", _attend([(33, 70), (34, 60)], 70, unseen=slice(33))),
        # Scores in the thousands, whose last bit in f32 is worth 1e-4 of a weight: devices add in other orders.
        Case("scores far apart", _attend(_SHORT, 14, score_factor=60), tolerance={"out": 1e-4}),
        Case("equal scores", _attend(_SHORT, 14, score_factor=0)),
        Case("another geometry", _attend(_PACKED, 81, width=48, d_v=32)),
        Case("odd widths", _attend(_SHORT, 14, heads=5, width=26, d_v=20, sink=True)),
        Case("values are all channels", _attend(_SHORT, 14, width=64, d_v=64)),
        Case("one value channel", _attend(_SHORT, 14, width=40, d_v=1)),
        Case("more values than one program takes", _attend(_SHORT, 14, width=700, d_v=600)),
        Case("f16", _attend(_PACKED[-12:], 81, heads=5, dtype=torch.float16), tolerance={"out": 1e-3}),
        _bf16("bf16", _PACKED, 81, heads=1),
        _bf16("bf16, 7 heads and a sink", _PACKED[-12:], 81, heads=7, sink=True),
        _bf16("bf16, 16 heads", _EDGES, 130, heads=16),
        _bf16("bf16, 96 heads", [(0, 129), (128, 130)], 130, heads=96, sink=True),
        _bf16("bf16, 128 heads", [(0, 64), (0, 65)], 65, heads=128),
        _bf16("bf16, queries that see nothing", _NOTHING, 9, sink=True),
        _bf16("bf16, NaN between windows", [(0, 40), (64, 90), (2, 7)], 140, unseen=slice(40, 64)),
    ),
    result=lambda _, returned: {"out": returned[0], "lse": returned[1]},
    tolerance={"out": 5e-6, "lse": 5e-6},
)
