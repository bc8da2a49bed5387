"""`torch.ops.dsa.mqa_logits`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("dsa::mqa_logits", mutates_args=())
def mqa_logits_node(
    q: Tensor, keys: Tensor, scales: Tensor | None, head_weights: Tensor, starts: Tensor, ends: Tensor, clean: bool
) -> Tensor:
    """The public function, into a new tensor."""
    from dsa_exec.ops.mqa_logits import mqa_logits

    # A graph is told that its rows lie side by side, as not every backend would have them.
    out = q.new_empty(q.shape[0], keys.shape[0], dtype=torch.float32)
    return mqa_logits(q, keys, scales, head_weights, starts, ends, clean=clean, out=out)


@mqa_logits_node.register_fake
def _fake(q: Tensor, keys: Tensor, *_: object) -> Tensor:
    return q.new_empty(q.shape[0], keys.shape[0], dtype=torch.float32)


@torch.library.custom_op("dsa::mqa_logits_out", mutates_args=("out",))
def mqa_logits_out_node(
    q: Tensor,
    keys: Tensor,
    scales: Tensor | None,
    head_weights: Tensor,
    starts: Tensor,
    ends: Tensor,
    clean: bool,
    out: Tensor,
) -> None:
    """The public function, into a given tensor."""
    from dsa_exec.ops.mqa_logits import mqa_logits

    mqa_logits(q, keys, scales, head_weights, starts, ends, clean=clean, out=out)


@mqa_logits_out_node.register_fake
def _fake_out(*_: object) -> None:
    return None
