"""Read keys back from the index-K cache, one request after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.checks import INDEX_DTYPES, Arguments
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.index_gather.custom_op import index_gather_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `index_gather`."""

    cache: IndexKCache
    page_table: torch.Tensor
    seq_lens: torch.Tensor
    total_tokens: int


def index_gather(
    cache: IndexKCache, page_table: torch.Tensor, seq_lens: torch.Tensor, total_tokens: int | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The keys of all tokens of all requests, in order, as they are stored.

    Args:
        cache: where they are.
        page_table: int32 [b, pages], the pages of each request in order.
        seq_lens: int [b], tokens of each request.
        total_tokens: the sum of `seq_lens`. Read from the device, which waits for it, if not given.

    Returns:
        keys: [s, d], e4m3 (still rotated, if the layout says so) or the model's dtype; zeros for tokens beyond the
            page table or on pages that the cache does not have.
        scales: f32 [s], or None where the layout holds the model's dtype.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, a negative length, or (on the CPU, and
            elsewhere under `debug_check_indices`) a `total_tokens` that is not the sum.
        UnsupportedCall: no backend takes the call.
    """
    if torch.compiler.is_compiling() and is_one_node(cache.data) and total_tokens is not None:
        keys, scales = index_gather_node(cache.data, cache.layout.spec, page_table, seq_lens, total_tokens)
        return keys, (scales if cache.layout.format == "fp8" else None)
    args = Arguments("index_gather")
    args.kind(cache, "cache", IndexKCache)
    args.device(cache.data, "cache")
    args.tensor(page_table, "page_table", "b pages", dtype=torch.int32)
    args.tensor(seq_lens, "seq_lens", "b", dtype=INDEX_DTYPES)
    total_tokens = args.total(seq_lens, "seq_lens", total_tokens, on_accelerators=settings.debug_check_indices)
    call = Call(cache, page_table, seq_lens, total_tokens)
    gathered: tuple[torch.Tensor, torch.Tensor | None] = run("index_gather", call, page_table.device)
    return gathered
