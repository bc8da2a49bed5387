"""Write tokens into the MLA cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.core.checks import FLOAT_DTYPES, INDEX_DTYPES, Arguments
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.ops.kv_store.custom_op import kv_store_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `kv_store`."""

    cache: MlaCache
    latent: torch.Tensor
    rope: torch.Tensor
    slots: torch.Tensor


def kv_store(cache: MlaCache, latent: torch.Tensor, rope: torch.Tensor, slots: torch.Tensor) -> None:
    """Write one token a row into the cache, quantised as its layout says.

    Gradients pass the model format alone: there the cache keeps the graph of what was written into it, until its data
    is detached.

    Args:
        cache: written in place.
        latent: float [t, latent_dim], normalised.
        rope: float [t, rope_dim], rotated by position.
        slots: int [t], where each token goes; -1 writes nothing. No slot twice: which token would stay is not defined.

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above; on the CPU, and elsewhere under
            `debug_check_indices`, a slot that the cache does not have. Unchecked, such a slot writes nothing.
        UnsupportedCall: no backend takes the call.
    """
    if torch.compiler.is_compiling() and is_one_node(latent, rope, cache.data):
        kv_store_node(cache.data, cache.layout.spec, latent, rope, slots)
        return
    args = Arguments("kv_store")
    args.kind(cache, "cache", MlaCache)
    args.device(cache.data, "cache")
    args.tensor(latent, "latent", f"t {cache.layout.latent_dim}", dtype=FLOAT_DTYPES)
    args.tensor(rope, "rope", f"t {cache.layout.rope_dim}", dtype=latent.dtype)
    args.tensor(slots, "slots", "t", dtype=INDEX_DTYPES)
    args.values(slots, "slots", low=-1, high=cache.slots - 1, on_accelerators=settings.debug_check_indices)
    if cache.layout.format == "fp8":
        latent, rope = latent.detach(), rope.detach()
    run("kv_store", Call(cache, latent, rope, slots), latent.device)
