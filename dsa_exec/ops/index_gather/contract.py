"""What every backend of `index_gather` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.dispatch.contract import Case, Contract, index, page_table
from dsa_exec.layouts.index_k import IndexKLayout


def _gather(
    table: Sequence[Sequence[int]],
    lens: Sequence[int],
    *,
    layout: IndexKLayout | None = None,
    pages: int = 4,
    total_given: bool = True,
    len_dtype: torch.dtype = torch.int32,
) -> Callable[[torch.Generator, torch.device], dict[str, Any]]:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        return {
            "cache": random_index_k_cache(generator, layout or IndexKLayout(), pages, device),
            "page_table": page_table(device, table),
            "seq_lens": index(device, *lens, dtype=len_dtype),
            "total_tokens": sum(lens) if total_given else None,
        }

    return make


def _result(_: dict[str, Any], returned: tuple[torch.Tensor, torch.Tensor | None]) -> dict[str, torch.Tensor]:
    keys, scales = returned
    return {"keys": keys.float()} | ({} if scales is None else {"scales": scales})


_TILES = IndexKLayout(page_tokens=16, order="preshuffled")
_NARROW = IndexKLayout("model", head_dim=40, element_bytes=4)

CONTRACT = Contract(
    op="index_gather",
    cases=(
        Case("ragged", _gather([[2, 0], [1, 3], [3, 1]], [70, 128, 1])),
        Case("page edges", _gather([[3, 2], [0, 1]], [64, 65])),
        Case("an empty request", _gather([[3], [0], [1]], [5, 0, 64])),
        Case("no request", _gather([], [])),
        Case("one token", _gather([[2]], [1])),
        Case("no token", _gather([[2], [1]], [0, 0])),
        Case("many requests", _gather([[it % 4] for it in range(300)], [it % 2 for it in range(300)])),
        Case("lengths in int64", _gather([[2, 1], [0, 3]], [65, 2], len_dtype=torch.int64)),
        Case("no page", _gather([[], []], [2, 1])),
        Case("preshuffled pages of one tile", _gather([[2, 0], [1, 3]], [17, 32], layout=_TILES)),
        Case("nothing quantised of 40 channels", _gather([[2, 0], [1, 3]], [70, 9], layout=_NARROW)),
        Case("total not given", _gather([[1], [2]], [3, 4], total_given=False)),
        Case("pages that are not there", _gather([[3, -1], [99, 0]], [70, 70])),
        Case("beyond the table", _gather([[1], [0]], [66, 2])),
        Case("pages of one token", _gather([[3, 1, 0], [2, 2, 2]], [3, 1], layout=IndexKLayout(page_tokens=1))),
        Case("preshuffled", _gather([[2, 0], [1, 3]], [70, 128], layout=IndexKLayout(order="preshuffled"))),
        Case("nothing quantised", _gather([[2, 0], [1, 3]], [70, 9], layout=IndexKLayout("model", element_bytes=4))),
    ),
    result=_result,
)
