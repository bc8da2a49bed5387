"""What every backend of `index_select` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.caches.samples import random_index_k_cache
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.contract import Case, Contract, index, normal
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.index_select import GatheredKeys, PagedKeys

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]
_PLENTY = MemoryReading(2**40, 2**40)


def _gathered(
    windows: Sequence[tuple[int, int]],
    key_count: int,
    k: int,
    *,
    memory: MemoryReading = _PLENTY,
    quantised: bool = True,
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        dtype = E4M3 if quantised else torch.float32
        keys = GatheredKeys(
            keys=normal(generator, device, key_count, 128).to(dtype),
            scales=normal(generator, device, key_count).abs() + 0.1 if quantised else None,
            starts=index(device, *(start for start, _ in windows)),
            ends=index(device, *(end for _, end in windows)),
        )
        q = normal(generator, device, len(windows), 32, 128).to(dtype)
        head_weights = normal(generator, device, len(windows), 32)
        return {"q": q, "head_weights": head_weights, "keys": keys, "k": k, "memory": memory}

    return make


def _paged(
    lens: Sequence[Sequence[int]], k: int, *, memory: MemoryReading = _PLENTY, missing_page: int | None = None
) -> Make:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        requests, next_n = len(lens), len(lens[0])
        cache = random_index_k_cache(generator, IndexKLayout(), 2 * requests, device)
        table = torch.randperm(2 * requests, generator=generator).reshape(requests, 2).to(device, torch.int32)
        if missing_page is not None:
            table[:, 1] = missing_page
        return {
            "q": normal(generator, device, requests, next_n, 32, 128).to(E4M3),
            "head_weights": normal(generator, device, requests * next_n, 32),
            "keys": PagedKeys(cache, table, index(device, *lens)),
            "k": k,
            "memory": memory,
        }

    return make


_CAUSAL = tuple((0, end) for end in range(1, 41)) + tuple((40, end) for end in range(60, 71))
_TIGHT = MemoryReading(10**6, 20 * 70 * 4)

CONTRACT = Contract(
    op="index_select",
    cases=(
        Case("ragged", _gathered(_CAUSAL, 70, 16)),
        Case("ragged in chunks", _gathered(_CAUSAL, 70, 16, memory=_TIGHT)),
        Case("a budget below one row", _gathered(_CAUSAL[:5], 70, 16, memory=MemoryReading(1, 0))),
        Case("nothing quantised", _gathered(_CAUSAL, 70, 16, quantised=False)),
        Case("k beyond the keys", _gathered(_CAUSAL[:5], 70, 128)),
        Case("no row", _gathered((), 70, 16)),
        Case("decode", _paged([[70], [128], [1], [0]], 16)),
        Case("three rows a request", _paged([[68, 69, 70], [11, 12, 13]], 16)),
        Case("decode in chunks", _paged([[70], [128], [1]], 16, memory=_TIGHT)),
        Case("a page that is not there", _paged([[70], [128], [1]], 70, missing_page=99)),
        Case("a page below 0", _paged([[70], [128], [1]], 70, missing_page=-1)),
        Case("a page that cannot be", _paged([[70], [128], [1]], 70, missing_page=2**31 - 1)),
        Case("such a page, apart", _paged([[70], [128]], 70, missing_page=99), settings={"fuse_topk": False}),
        Case("transform apart", _paged([[70], [128], [1]], 16), settings={"fuse_topk": False}),
    ),
    result=lambda _, returned: {"indices": returned.indices},
)
