"""What each query row may see, in two numbers a row, where transformers would make a mask of rows by keys."""

from __future__ import annotations

from typing import Any

import torch
from transformers.masking_utils import causal_mask_function

from dsa_exec.integrations.transformers.errors import NotSupported


def visible_windows(
    batch_size: int,
    q_length: int,
    q_offset: int = 0,
    mask_function: Any = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
    **_: Any,
) -> torch.Tensor:
    """A mask function for `AttentionMaskInterface`.

    Args:
        batch_size: b.
        q_length: q, new tokens of each request.
        q_offset: tokens of each request before them.
        mask_function: transformers' own; only the causal one is known here.
        attention_mask: bool [b, q_offset + q], false where a request is padded. Padding must be on the left.
        device: where to put the result.

    Returns:
        int32 [b, 1, q, 2]: the first token that a row sees, and one past the last, in padded positions.

    Raises:
        NotSupported: another mask function, or padding that is not on the left.
    """
    if mask_function is not causal_mask_function:
        raise NotSupported("only causal masks without packed sequences are supported")
    ends = torch.arange(q_offset + 1, q_offset + q_length + 1, device=device, dtype=torch.int32)
    pads = torch.zeros(batch_size, device=device, dtype=torch.int32)
    if attention_mask is not None:
        seen = attention_mask[:, : q_offset + q_length].to(torch.int32)
        pads = (seen.cumsum(1) == 0).sum(1, dtype=torch.int32)
        if bool((seen.sum(1) + pads != seen.shape[1]).any()):
            raise NotSupported("attention_mask has padding that is not on the left: tokenizer.padding_side = 'left'")
    windows = torch.empty(batch_size, 1, q_length, 2, device=device, dtype=torch.int32)
    windows[..., 0] = pads[:, None, None]
    windows[..., 1] = ends
    return windows
