"""`torch.ops.dsa.topk_candidates`: the op as one node of a compiled or exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from dsa_exec.layouts.key_split import KeyPart, KeySplit


@torch.library.custom_op("dsa::topk_candidates", mutates_args=())
def topk_candidates_node(
    logits: Tensor,
    picked: Tensor,
    parts: int,
    block: int,
    blocks: Tensor | None,
    part: int,
    row_starts: Tensor | None,
) -> Tensor:
    """The public function on the numbers of a part: the block of its split is `blocks` if these are given."""
    from dsa_exec.ops.topk_candidates import topk_candidates

    split = KeySplit(parts, block if blocks is None else blocks)
    return topk_candidates(logits, picked, KeyPart(split, part), row_starts=row_starts)


@topk_candidates_node.register_fake
def _fake(_logits: Tensor, picked: Tensor, *_: object) -> Tensor:
    return picked.new_empty(picked.shape[0], 2, picked.shape[1])
