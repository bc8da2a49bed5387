"""What every backend of `sparse_mla_decode` must get right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dsa_exec.caches.samples import POISON, random_mla_cache
from dsa_exec.dispatch.contract import Case, Contract, normal, picks, with_holes
from dsa_exec.layouts.mla_kv import MlaLayout

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]


def _attend(
    rows: int,
    heads: int,
    k: int,
    *,
    layout: MlaLayout | None = None,
    dtype: torch.dtype = torch.float32,
    holes: bool = False,
    sink: bool = False,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        laid = layout or MlaLayout()
        cache = random_mla_cache(generator, laid, 3, device)
        slots = picks(generator, rows, k, cache.slots - 2) + 1
        if holes:
            slots = with_holes(generator, slots, cache.slots)
            # What -1 would address, clamped or not; nobody selects it.
            cache.data[[0, -1]] = POISON if laid.format == "fp8" else torch.nan
        args = {
            "q": normal(generator, device, rows, heads, laid.width, dtype=dtype),
            "cache": cache,
            "slots": slots.to(device),
            "sm_scale": laid.width**-0.5,
        }
        if sink:
            args["attn_sink"] = normal(generator, device, heads)
            args["attn_sink"][0] = -torch.inf  # as if there were none
        return args

    return make


_MODEL = MlaLayout("model", latent_dim=32, rope_dim=16, element_bytes=4)

CONTRACT = Contract(
    op="sparse_mla_decode",
    cases=(
        Case("ordinary", _attend(3, 16, 64)),
        Case("one row and one head", _attend(1, 1, 64)),
        Case("12 heads", _attend(2, 12, 33)),
        Case("128 heads", _attend(2, 128, 64)),
        Case("no row", _attend(0, 16, 64)),
        Case("nothing selected", _attend(2, 4, 0)),
        Case("holes and hostile slots", _attend(4, 8, 64, holes=True)),
        Case("attention sink", _attend(3, 8, 64, sink=True)),
        Case("sink and holes", _attend(4, 8, 64, holes=True, sink=True)),
        Case("bf16", _attend(2, 16, 64, dtype=torch.bfloat16), tolerance={"out": 8e-3}),
        Case("nothing quantised", _attend(3, 4, 8, layout=_MODEL)),
        Case("nothing quantised, with holes", _attend(4, 4, 8, layout=_MODEL, holes=True)),
    ),
    result=lambda _, returned: {"out": returned[0], "lse": returned[1]},
    tolerance={"out": 5e-6, "lse": 5e-6},
)
