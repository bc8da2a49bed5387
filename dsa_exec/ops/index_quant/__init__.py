"""Quantise index queries, and fold their scales into the head weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_exec.core.checks import FLOAT_DTYPES, Arguments
from dsa_exec.core.errors import ShapeError
from dsa_exec.dispatch.compiled import is_one_node
from dsa_exec.dispatch.select import run
from dsa_exec.layouts.index_k import IndexKLayout
from dsa_exec.ops.index_quant.custom_op import index_quant_node


@dataclass(frozen=True, slots=True)
class Call:
    """The checked arguments of `index_quant`."""

    q: torch.Tensor
    weights: torch.Tensor
    layout: IndexKLayout


def index_quant(q: torch.Tensor, weights: torch.Tensor, layout: IndexKLayout) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring index queries into the format of the keys that they will meet.

    Args:
        q: float [t, h, d], rotated by position, not normalised.
        weights: float [t, h], what `weights_proj` gives. h counts all index heads of the model, not a shard of them.
        layout: of the index-K cache: it says whether to quantise, to rotate first (Hadamard), to round scales up.

    Returns:
        q: e4m3 [t, h, d], or unchanged where the layout holds the model's dtype.
        head_weights: f32 [t, h] = weights * h**-0.5 * d**-0.5 * the scale of each query head (1 if not quantised).

    Raises:
        ArgumentError: a shape, dtype, stride or device that is not as above.
        UnsupportedCall: no backend takes the call.
    """
    if is_one_node(q, weights):
        return index_quant_node(q, weights, layout.spec)
    args = Arguments("index_quant")
    args.kind(layout, "layout", IndexKLayout)
    _, heads, _ = args.tensor(q, "q", f"t h {layout.head_dim}", dtype=FLOAT_DTYPES)
    if heads == 0:
        raise ShapeError("index_quant", "q", f"has shape {list(q.shape)}", "at least one head")
    args.tensor(weights, "weights", "t h", dtype=FLOAT_DTYPES)
    quantised: tuple[torch.Tensor, torch.Tensor] = run("index_quant", Call(q, weights, layout), q.device)
    return quantised
