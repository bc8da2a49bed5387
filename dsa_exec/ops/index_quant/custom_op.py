"""`torch.ops.dsa.index_quant`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.core.numerics import E4M3
from dsa_exec.layouts.index_k import IndexKLayout


@torch.library.custom_op("dsa::index_quant", mutates_args=())
def index_quant_node(q: Tensor, weights: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    """The public function; queries that it leaves as they are become a copy, since a node may not return its input."""
    from dsa_exec.ops.index_quant import index_quant

    quantised, head_weights = index_quant(q, weights, IndexKLayout.of_spec(layout))
    return (quantised.clone() if quantised is q else quantised), head_weights


@index_quant_node.register_fake
def _fake(q: Tensor, weights: Tensor, layout: str) -> tuple[Tensor, Tensor]:
    dtype = E4M3 if IndexKLayout.of_spec(layout).format == "fp8" else q.dtype
    return torch.empty_like(q, dtype=dtype), torch.empty_like(weights, dtype=torch.float32)
