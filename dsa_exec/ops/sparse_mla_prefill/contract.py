"""What every backend of `sparse_mla_prefill` must get right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dsa_exec.dispatch.contract import Case, Contract, normal, picks, with_holes

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]


def _attend(
    rows: int,
    heads: int,
    k: int,
    *,
    key_count: int = 90,
    width: int = 576,
    d_v: int = 512,
    dtype: torch.dtype = torch.float32,
    holes: bool = False,
    sink: bool = False,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        indices = picks(generator, rows, k, max(key_count, k))
        kv = normal(generator, device, key_count, width, dtype=dtype)
        if holes:
            free = (indices > 0) & (indices < key_count - 1)
            indices = with_holes(generator, indices.where(free, -1), key_count)
            kv[[0, -1]] = torch.nan  # what an index of -1 would address, clamped or not; nobody selects it
        args = {
            "q": normal(generator, device, rows, heads, width, dtype=dtype),
            "kv": kv,
            "indices": indices.to(device),
            "sm_scale": width**-0.5,
            "d_v": d_v,
        }
        if sink:
            args["attn_sink"] = normal(generator, device, heads)
            args["attn_sink"][0] = -torch.inf  # as if there were none
        return args

    return make


_BF16 = {"out": 8e-3}
"""Outputs are rounded to bf16, 2^-8, and so are the weights of kernels for it."""

CONTRACT = Contract(
    op="sparse_mla_prefill",
    cases=(
        Case("ordinary", _attend(3, 16, 64)),
        Case("one row and one head", _attend(1, 1, 64)),
        Case("12 heads", _attend(2, 12, 33)),
        Case("128 heads", _attend(2, 128, 64)),
        Case("no row", _attend(0, 16, 64)),
        Case("nothing to select from", _attend(2, 4, 8, key_count=0)),
        Case("nothing selected", _attend(2, 4, 0)),
        Case("holes and hostile indices", _attend(4, 8, 64, holes=True)),
        Case("attention sink", _attend(3, 8, 64, sink=True)),
        Case("sink and holes", _attend(4, 8, 64, holes=True, sink=True)),
        Case("bf16", _attend(2, 16, 64, dtype=torch.bfloat16), tolerance=_BF16),
        Case("another geometry", _attend(2, 4, 8, width=48, d_v=32)),
        Case("a tile and one more", _attend(2, 3, 65, sink=True)),
        Case("every row named", _attend(2, 2, 90)),
        Case("f16", _attend(2, 5, 40, dtype=torch.float16), tolerance={"out": 1e-3}),
        Case("bf16, 1 head", _attend(2, 1, 64, dtype=torch.bfloat16), tolerance=_BF16),
        Case("bf16, 7 heads", _attend(3, 7, 70, dtype=torch.bfloat16, holes=True), tolerance=_BF16),
        Case(
            "bf16, 16 heads and holes", _attend(4, 16, 64, dtype=torch.bfloat16, holes=True, sink=True), tolerance=_BF16
        ),
        Case("bf16, 24 heads", _attend(3, 24, 33, dtype=torch.bfloat16, sink=True), tolerance=_BF16),
        Case("bf16, 32 heads and holes", _attend(4, 32, 130, dtype=torch.bfloat16, holes=True), tolerance=_BF16),
        Case("bf16, 48 heads", _attend(3, 48, 64, dtype=torch.bfloat16, holes=True), tolerance=_BF16),
        Case("bf16, 96 heads", _attend(3, 96, 129, dtype=torch.bfloat16, holes=True, sink=True), tolerance=_BF16),
        Case("bf16, 128 heads", _attend(2, 128, 64, dtype=torch.bfloat16), tolerance=_BF16),
        *(
            Case(f"bf16, {heads} heads", _attend(3, heads, 70, dtype=torch.bfloat16, holes=True), tolerance=_BF16)
            for heads in (8, 12, 64)
        ),
        Case("bf16, nothing selected", _attend(2, 4, 0, dtype=torch.bfloat16), tolerance=_BF16),
        Case("bf16, nothing to select from", _attend(2, 4, 8, key_count=0, dtype=torch.bfloat16), tolerance=_BF16),
    ),
    result=lambda _, returned: {"out": returned[0], "lse": returned[1]},
    tolerance={"out": 5e-6, "lse": 5e-6},
)
