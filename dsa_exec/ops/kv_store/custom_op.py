"""`torch.ops.dsa.kv_store`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.caches.mla_cache import MlaCache
from dsa_exec.layouts.mla_kv import MlaLayout


@torch.library.custom_op("dsa::kv_store", mutates_args=("data",))
def kv_store_node(data: Tensor, layout: str, latent: Tensor, rope: Tensor, slots: Tensor) -> None:
    """The public function on the parts of a cache."""
    from dsa_exec.ops.kv_store import kv_store

    kv_store(MlaCache(data, MlaLayout.of_spec(layout)), latent, rope, slots)


@kv_store_node.register_fake
def _fake(*_: object) -> None:
    return None
