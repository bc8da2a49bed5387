"""What every backend of `kv_gather` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.caches.samples import random_mla_cache
from dsa_exec.dispatch.contract import Case, Contract, index, page_table
from dsa_exec.layouts.mla_kv import MlaLayout


def _gather(
    table: Sequence[Sequence[int]],
    lens: Sequence[int],
    *,
    layout: MlaLayout | None = None,
    dtype: torch.dtype = torch.float32,
    total_given: bool = True,
    len_dtype: torch.dtype = torch.int32,
) -> Callable[[torch.Generator, torch.device], dict[str, Any]]:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        return {
            "cache": random_mla_cache(generator, layout or MlaLayout(), 4, device),
            "page_table": page_table(device, table),
            "seq_lens": index(device, *lens, dtype=len_dtype),
            "total_tokens": sum(lens) if total_given else None,
            "dtype": dtype,
        }

    return make


_MODEL = MlaLayout("model", latent_dim=32, rope_dim=16, element_bytes=4)

CONTRACT = Contract(
    op="kv_gather",
    cases=(
        Case("ragged", _gather([[2, 0], [1, 3], [3, 1]], [70, 128, 1])),
        Case("page edges in bf16", _gather([[3, 2], [0, 1]], [64, 65], dtype=torch.bfloat16)),
        Case("an empty request", _gather([[3], [0], [1]], [5, 0, 64])),
        Case("no request", _gather([], [])),
        Case("one token", _gather([[2]], [1])),
        Case("no token", _gather([[2], [1]], [0, 0])),
        Case("many requests", _gather([[it % 4] for it in range(300)], [it % 2 for it in range(300)])),
        Case("lengths in int64", _gather([[2, 1], [0, 3]], [65, 2], len_dtype=torch.int64)),
        Case("no page", _gather([[], []], [2, 1])),
        Case("beyond the table in f16", _gather([[1], [0]], [66, 2], dtype=torch.float16)),
        Case("total not given", _gather([[1], [2]], [3, 4], total_given=False)),
        Case("pages that are not there", _gather([[3, -1], [99, 0]], [70, 70])),
        Case("nothing quantised", _gather([[2], [1]], [7, 9], layout=_MODEL)),
    ),
    result=lambda _, returned: {"tokens": returned},
    tolerance={"tokens": 1e-7},
)
