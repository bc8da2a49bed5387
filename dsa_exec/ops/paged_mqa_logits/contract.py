"""What every backend of `paged_mqa_logits` must get right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.caches.samples import POISON, random_index_k_cache
from dsa_exec.core.numerics import E4M3
from dsa_exec.dispatch.contract import Case, Contract, index, normal, page_table
from dsa_exec.layouts.index_k import IndexKLayout

Make = Callable[[torch.Generator, torch.device], dict[str, Any]]
BIG, SMALL = 2**31 - 1, -(2**31)


def _score(
    lens: Sequence[Sequence[int]],
    table: Sequence[Sequence[int]],
    *,
    heads: int = 32,
    width: int | None = None,
    layout: IndexKLayout | None = None,
    dtype: torch.dtype = torch.float32,
    keys: torch.Tensor | float | None = None,
    unseen: Sequence[int] = (),
    into_nan: bool = False,
    clean: bool = True,
) -> Make:
    """Arguments for requests whose rows see so many positions each, in a cache of four pages.

    Args:
        lens: how many, for each request and row.
        table: the pages of each request.
        heads: heads of a row.
        width: columns of the result; as many as the longest row sees if it is not given.
        layout: the cache's; plain e4m3 pages of 64 if it is not given.
        dtype: of the queries where nothing is quantised. A cache of two bytes a channel is bf16.
        keys: what every channel of a key is, by slot, and its scale is 1; random keys if it is not given.
        unseen: slots whose keys and scales are NaN; no row may see them.
        into_nan: write into a tensor of NaN whose rows are further apart than they are wide.
        clean: as in the op.
    """

    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        laid = layout or IndexKLayout()
        requests, next_n = len(lens), len(lens[0]) if lens else 1
        columns = max((max(row) for row in lens), default=0) if width is None else width
        q = normal(generator, device, requests, next_n, heads, laid.head_dim)
        args = {
            "q": q.to(E4M3 if laid.format == "fp8" else dtype),
            "cache": _cache(generator, laid, keys, unseen, device),
            "head_weights": normal(generator, device, requests * next_n, heads),
            "context_lens": index(device, *lens).reshape(requests, next_n),
            "page_table": page_table(device, table),
            "max_context_len": columns,
            "clean": clean,
        }
        if into_nan:
            args["out"] = torch.full((requests * next_n, columns + 7), torch.nan, device=device)[:, :columns]
        return args

    return make


def _cache(
    generator: torch.Generator,
    layout: IndexKLayout,
    keys: torch.Tensor | float | None,
    unseen: Sequence[int],
    device: torch.device,
) -> IndexKCache:
    if layout.format == "model":
        drawn = random_index_k_cache(generator, dataclasses.replace(layout, element_bytes=4), 4, device)
        return IndexKCache(drawn.data if layout.element_bytes == 4 else drawn.data.bfloat16(), layout)
    cache = random_index_k_cache(generator, layout, 4, torch.device("cpu"))
    if keys is not None:
        codes = torch.as_tensor(keys, dtype=torch.float32).to(E4M3).view(torch.uint8).expand(cache.slots)
        rows = codes.reshape(4, layout.page_tokens, 1).expand(-1, -1, layout.head_dim)
        cache.data[:, : layout.scales_offset_bytes] = rows.reshape(4, -1)
        cache.data[:, layout.scales_offset_bytes :] = torch.ones(layout.page_tokens).view(torch.uint8)
    for slot in unseen:
        page, token = divmod(slot, layout.page_tokens)
        for channel in range(layout.head_dim):
            cache.data[page, layout.key_byte(slot, channel) - page * layout.page_bytes] = POISON
        begin = layout.scales_offset_bytes + token * 4
        cache.data[page, begin : begin + 4] = POISON
    return IndexKCache(cache.data.to(device), layout)


def _result(args: dict[str, Any], logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """The logits; where `clean` is off, what a row does not see is put to -inf here, as its value is not defined."""
    positions = torch.arange(logits.shape[1], device=logits.device)
    hidden = positions >= args["context_lens"].flatten()[:, None]
    return {"logits": logits if args["clean"] else logits.masked_fill(hidden, -torch.inf)}


_HOSTILE = [[2, -1, 0], [99, 1, BIG]]
_BF16 = IndexKLayout("model", element_bytes=2)

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
        Case("pages of 48", _score([[50], [96]], [[3, 1], [0, 2]], layout=IndexKLayout(page_tokens=48))),
        Case("preshuffled", _score([[70], [128]], [[2, 0], [1, 3]], layout=IndexKLayout(order="preshuffled"))),
        Case(
            "preshuffled pages of 16", _score([[20, 21]], [[3, 1]], layout=IndexKLayout("fp8", 16, 128, "preshuffled"))
        ),
        Case("nothing quantised", _score([[70], [9]], [[2, 0], [1, 3]], layout=IndexKLayout("model", element_bytes=4))),
        Case(
            "nothing quantised, bf16", _score([[70, 71], [9, 9]], [[2, 0], [1, 3]], layout=_BF16, dtype=torch.bfloat16)
        ),
        Case("queries of another dtype", _score([[20], [9]], [[2], [1]], layout=_BF16, dtype=torch.float16)),
        Case(
            "40 channels",
            _score([[20], [9]], [[2, 0], [1, 3]], heads=3, layout=IndexKLayout("model", 16, 40, element_bytes=4)),
        ),
        Case("200 channels", _score([[9, 8]], [[1]], heads=3, layout=IndexKLayout("model", 16, 200, element_bytes=2))),
        Case("one row", _score([[1]], [[2]])),
        Case("two rows a request", _score([[69, 70], [64, 65]], [[2, 0], [1, 3]], heads=64)),
        Case("four rows of lengths of their own", _score([[70, 3, 0, 64], [1, 65, 128, 127]], [[2, 0], [1, 3]])),
        Case("five rows a request", _score([[64, 65, 66, 67, 68]], [[2, 0]])),
        Case("eight rows a request", _score([[*range(60, 68)], [*range(1, 9)]], [[2, 0], [1, 3]], into_nan=True)),
        Case("eleven rows a request", _score([[*range(5, 16)], [0] * 11], [[2], [1]], width=20)),
        Case("1 head", _score([[70], [9]], [[2, 0], [1, 3]], heads=1)),
        Case("1 head, nine rows a request", _score([[*range(8, 17)]], [[2]], heads=1)),
        Case("12 heads", _score([[70, 70], [9, 3]], [[2, 0], [1, 3]], heads=12)),
        Case("128 heads", _score([[12, 13], [9, 3]], [[2], [1]], heads=128)),
        Case("pages that are not there, several rows", _score([[70, 140, 64], [1, 70, 128]], _HOSTILE, heads=64)),
        Case(
            "pages that are not there, not cleaned", _score([[70, 140], [1, 128]], _HOSTILE, clean=False, into_nan=True)
        ),
        Case("a page that all requests share", _score([[64], [63], [10]], [[1], [1], [1]])),
        Case("into rows of another stride", _score([[70], [128], [1]], [[2, 0], [1, 3], [3, 1]], into_nan=True)),
        Case("not cleaned, into NaN", _score([[70, 3], [0, 65]], [[2, 0], [1, 3]], clean=False, into_nan=True)),
        Case("NaN that no row sees", _score([[63, 60], [64, 3]], [[2], [1]], width=70, unseen=[191, *range(0, 64, 9)])),
        Case("all equal", _score([[70], [128]], [[2, 0], [1, 3]], keys=1.5)),
        Case("all zero", _score([[70], [128]], [[2, 0], [1, 3]], keys=-0.0)),
        Case("mostly zero", _score([[130, 128]], [[2, 0, 1]], keys=(torch.arange(256) % 32 == 3).float())),
        Case("a ramp", _score([[130, 128]], [[0, 1, 2]], keys=torch.arange(256) / 8)),
        Case("wide, and cleaned in pieces", _score([[3, 70], [0, 0]], [[2, 0], [1, 3]], heads=4, width=4300)),
        Case("no column", _score([[0]], [[1]])),
        Case("no page", _score([[0], [0]], [[], []], width=5)),
    ),
    result=_result,
    tolerance={"logits": 2e-6},
    # Hopper's matrix units sum products of e4m3 with about 14 bits: 1.3e-4 of the logits' norm. The worst of a few
    # thousand logits is about three times as far off.
    accelerated={"logits": 5e-4},
)
