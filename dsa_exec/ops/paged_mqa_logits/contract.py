"""What every backend of `paged_mqa_logits` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.contract import Case, Contract, index, normal, page_table
from dsa_exec.layouts.index_k import IndexKLayout

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]


def _score(
    lens: Sequence[Sequence[int]],
    table: Sequence[Sequence[int]],
    *,
    heads: int = 32,
    width: int | None = None,
    layout: IndexKLayout | None = None,
    clean: bool = True,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        laid = layout or IndexKLayout()
        requests, next_n = len(lens), len(lens[0]) if lens else 1
        q = normal(generator, device, requests, next_n, heads, 128)
        return {
            "q": q.to(E4M3) if laid.format == "fp8" else q,
            "cache": random_index_k_cache(generator, laid, 4, device),
            "head_weights": normal(generator, device, requests * next_n, heads),
            "context_lens": index(device, *lens).reshape(requests, next_n),
            "page_table": page_table(device, table),
            "max_context_len": max((max(row) for row in lens), default=0) if width is None else width,
            "clean": clean,
        }

    return make


def _result(args: dict[str, Any], logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """The logits; where `clean` is off, what a row does not see is put to -inf here, as its value is not defined."""
    positions = torch.arange(logits.shape[1], device=logits.device)
    hidden = positions >= args["context_lens"].flatten()[:, None]
    return {"logits": logits if args["clean"] else logits.masked_fill(hidden, -torch.inf)}


CONTRACT = Contract(
    op="paged_mqa_logits",
    cases=(
        Case("decode", _score([[70], [128], [1]], [[2, 0], [1, 3], [3, 1]])),
        Case("not cleaned", _score([[70], [128], [1]], [[2, 0], [1, 3], [3, 1]], clean=False)),
        Case("page edges", _score([[64], [65], [63]], [[2, 0], [1, 3], [3, 1]])),
        Case("three rows a request", _score([[68, 69, 70], [11, 12, 13]], [[2, 0], [1, 3]])),
        Case("every row sees all", _score([[13, 13, 13]], [[3]])),
        Case("a row that sees nothing", _score([[0], [5]], [[2], [1]])),
        Case("no request", _score([], [], width=8)),
        Case("wider than the longest", _score([[3], [5]], [[2, 0], [1, 3]], width=100)),
        Case("wider than the table", _score([[3], [5]], [[2], [1]], width=100)),
        Case("pages that are not there", _score([[70], [70]], [[2, -1], [99, 1]])),
        Case("64 heads", _score([[70], [66]], [[2, 0], [1, 3]], heads=64)),
        Case("pages of one token", _score([[3], [2]], [[3, 1, 0], [2, 2, 2]], layout=IndexKLayout(page_tokens=1))),
        Case("preshuffled", _score([[70], [128]], [[2, 0], [1, 3]], layout=IndexKLayout(order="preshuffled"))),
        Case("nothing quantised", _score([[70], [9]], [[2, 0], [1, 3]], layout=IndexKLayout("model", element_bytes=4))),
    ),
    result=_result,
    tolerance={"logits": 2e-6},
)
