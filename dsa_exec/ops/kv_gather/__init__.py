"""Read tokens back from the MLA cache, dequantised, one request after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.checks import FLOAT_DTYPES, INDEX_DTYPES, Arguments
from dsa_exec.core.errors import DtypeError
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.kv_gather.custom_op import kv_gather_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `kv_gather`."""

    cache: MlaCache
    page_table: torch.Tensor
    seq_lens: torch.Tensor
    total_tokens: int
    dtype: torch.dtype


def kv_gather(
    cache: MlaCache,
    page_table: torch.Tensor,
    seq_lens: torch.Tensor,
    total_tokens: int | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> torch.Tensor:
    """The tokens of all requests, in order.

    Args:
        cache: where they are.
        page_table: int32 [b, pages], the pages of each request in order.
        seq_lens: int [b], tokens of each request.
        total_tokens: the sum of `seq_lens`. Read from the device, which waits for it, if not given.
        dtype: of the result.

    Returns:
        [s, latent_dim + rope_dim]: latents, then RoPE parts; zeros for tokens beyond the page table or on pages that
        the cache does not have.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above, a negative length, or (on the CPU, and
            elsewhere under `debug_check_indices`) a `total_tokens` that is not the sum.
        UnsupportedCall: no backend takes the call.
    """
    if torch.compiler.is_compiling() and is_one_node(cache.data) and total_tokens is not None:
        return kv_gather_node(cache.data, cache.layout.spec, page_table, seq_lens, total_tokens, dtype)
    args = Arguments("kv_gather")
    args.kind(cache, "cache", MlaCache)
    args.device(cache.data, "cache")
    args.tensor(page_table, "page_table", "b pages", dtype=torch.int32)
    args.tensor(seq_lens, "seq_lens", "b", dtype=INDEX_DTYPES)
    if dtype not in FLOAT_DTYPES:
        raise DtypeError("kv_gather", "dtype", f"is {dtype}", " or ".join(map(str, FLOAT_DTYPES)))
    checked = settings.debug_check_indices
    total_tokens = args.total(seq_lens, "seq_lens", total_tokens, on_accelerators=checked)
    call = Call(cache, page_table, seq_lens, total_tokens, dtype)
    gathered: torch.Tensor = run("kv_gather", call, page_table.device)
    return gathered
