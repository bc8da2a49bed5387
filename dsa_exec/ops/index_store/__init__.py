"""Write keys into the index-K cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.core.checks import FLOAT_DTYPES, INDEX_DTYPES, Arguments
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.index_store.custom_op import index_store_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `index_store`."""

    cache: IndexKCache
    keys: torch.Tensor
    slots: torch.Tensor


def index_store(cache: IndexKCache, keys: torch.Tensor, slots: torch.Tensor) -> None:
    """Write one key a token into the cache, quantised as its layout says. No gradient passes.

    Args:
        cache: written in place.
        keys: float [t, d], normalised and rotated by position.
        slots: int [t], where each key goes; -1 writes nothing. No slot twice: which key would stay is not defined.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above; on the CPU, and elsewhere under
            `debug_check_indices`, a slot that the cache does not have. Unchecked, such a slot writes nothing.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node():
        index_store_node(cache.data, cache.layout.spec, keys.detach(), slots)
        return
    args = Arguments("index_store")
    args.kind(cache, "cache", IndexKCache)
    args.device(cache.data, "cache")
    args.tensor(keys, "keys", f"t {cache.layout.head_dim}", dtype=FLOAT_DTYPES)
    args.tensor(slots, "slots", "t", dtype=INDEX_DTYPES)
    args.values(slots, "slots", low=-1, high=cache.slots - 1, on_accelerators=settings.debug_check_indices)
    run("index_store", Call(cache, keys.detach(), slots), keys.device)
