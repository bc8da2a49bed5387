"""What every backend of `index_store` must get right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from dsa_exec.caches.samples import poisoned_index_k_cache
from dsa_exec.dispatch.contract import Case, Contract, index, normal
from dsa_exec.layouts.index_k import IndexKLayout


def _store(
    slots: Sequence[int],
    *,
    layout: IndexKLayout | None = None,
    pages: int = 3,
    dtype: torch.dtype = torch.float32,
    zeros: bool = False,
    small: bool = False,
    slot_dtype: torch.dtype = torch.int64,
) -> Callable[[torch.Generator, torch.device], dict[str, Any]]:
    def make(generator: torch.Generator, device: torch.device) -> dict[str, Any]:
        laid = layout or IndexKLayout()
        keys = normal(generator, device, len(slots), laid.head_dim, dtype=dtype)
        if small:  # all but the first channel round to 0 or -0
            keys[:, 1:] *= 1e-5
        return {
            "cache": poisoned_index_k_cache(laid, pages, device),
            "keys": torch.zeros_like(keys) if zeros else keys,
            "slots": index(device, *slots, dtype=slot_dtype),
        }

    return make


_ROTATED = IndexKLayout(pow2_scale=True, hadamard=True)
_TILES = IndexKLayout(page_tokens=16, order="preshuffled")
_NARROW = IndexKLayout("model", head_dim=40, element_bytes=4)
_UNSIGNED = IndexKLayout(order="preshuffled", unsigned_zero=True)
_EDGES = (0, 63, 64, 127, 128, 191)

CONTRACT = Contract(
    op="index_store",
    cases=(
        Case("page edges", _store(_EDGES)),
        Case("one token", _store([130])),
        Case("no token", _store([])),
        Case("padding", _store([-1, 5, -1, 7])),
        Case("bf16 keys", _store([3, 1, 2], dtype=torch.bfloat16)),
        Case("zeros", _store([3, 1, 2], zeros=True)),
        Case("pages of one token", _store([2, 0], layout=IndexKLayout(page_tokens=1))),
        Case("preshuffled", _store(_EDGES, layout=IndexKLayout(order="preshuffled"))),
        Case("preshuffled pages of one tile", _store((0, 15, 16, 31, 47), layout=_TILES)),
        Case("pages of 48", _store((0, 47, 48, 143), layout=IndexKLayout(page_tokens=48))),
        Case("a whole page backwards", _store(range(63, -1, -1), pages=1)),
        Case("slots in int32", _store([5, -1, 190], slot_dtype=torch.int32)),
        Case("rounded scales", _store(_EDGES, layout=IndexKLayout(pow2_scale=True))),
        # Rounded scales do not depend on the order of the sums within a rotation.
        Case("rotated", _store(_EDGES, layout=_ROTATED)),
        Case("rotated bf16 keys", _store([3, 1, 2], layout=_ROTATED, dtype=torch.bfloat16)),
        Case("rotated f16 keys", _store([3, 1, 2], layout=_ROTATED, dtype=torch.float16)),
        Case("zeros of both signs", _store(_EDGES, small=True)),
        Case("no negative zero", _store(_EDGES, layout=_UNSIGNED, small=True)),
        Case("only padding", _store([-1, -1])),
        Case("slot 0 and padding", _store([-1, 0, -1])),
        Case("nothing quantised", _store(_EDGES, layout=IndexKLayout("model", element_bytes=4))),
        Case("nothing quantised of 40 channels", _store([3, -1, 0], layout=_NARROW, dtype=torch.float16)),
    ),
    result=lambda args, _: {"bytes": args["cache"].data.view(torch.uint8)},
    # aiter multiplies by the rounded reciprocal of the scale: a key may get the code beside the one that it should.
    coarser={"aiter": {"bytes": 1 / 255}},
)
