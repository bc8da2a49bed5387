"""`torch.ops.dsa.index_store`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.caches.index_k_cache import IndexKCache
from dsa_exec.layouts.index_k import IndexKLayout


@torch.library.custom_op("dsa::index_store", mutates_args=("data",))
def index_store_node(data: Tensor, layout: str, keys: Tensor, slots: Tensor) -> None:
    """The public function on the parts of a cache."""
    from dsa_exec.ops.index_store import index_store

    index_store(IndexKCache(data, IndexKLayout.of_spec(layout)), keys, slots)


@index_store_node.register_fake
def _fake(*_: object) -> None:
    return None
