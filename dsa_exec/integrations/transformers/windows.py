"""What each query row may see, in two numbers a row, where transformers would make a mask of rows by keys."""

from __future__ import annotations

from typing import Any

import torch
from transformers.masking_utils import causal_mask_function

from dsa_config import settings
from dsa_exec.core.errors import ShapeError
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.padding import NOTHING_SAID


def visible_windows(
    batch_size: int,
    q_length: int,
    q_offset: int | torch.Tensor = 0,
    mask_function: Any = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
    **_: Any,
) -> torch.Tensor:
    """A mask function for `AttentionMaskInterface`.

    Args:
        batch_size: b.
        q_length: q, new tokens of each request.
        q_offset: tokens of each request before them; a tensor where only the device knows.
        mask_function: transformers' own; only the causal one is known here.
        attention_mask: bool [b, q_offset + q or more], false where a request is padded. Padding must be on the left.
        device: where to put the result.

    Returns:
        int32 [b, 1, q, 2]: the first token that a row sees, and one past the last, in padded positions. Without a mask
        the first is -1: it is what the passes before said, which the cache knows.

    Raises:
        ShapeError: a mask that is not one row of tokens for each request.
        NotSupported: another mask function, a mask that says nothing of tokens before, or padding that is not on the
            left. Steps of one token on an accelerator do not look at the padding, which the passes before them have,
            unless `debug_check_indices` is on.
    """
    if mask_function is not causal_mask_function:
        raise NotSupported("only causal masks without packed sequences are supported")
    ends = torch.arange(1, q_length + 1, device=device, dtype=torch.int32) + q_offset
    pads = torch.full((batch_size,), NOTHING_SAID, device=device, dtype=torch.int32)
    if attention_mask is not None:
        if attention_mask.ndim != 2 or attention_mask.shape[0] != batch_size:
            wanted = f"[{batch_size}, tokens], a row for each request"
            raise ShapeError("transformers", "attention_mask", f"has shape {list(attention_mask.shape)}", wanted)
        if not torch.compiler.is_compiling():
            _check(attention_mask, q_length, q_offset)
        pads = (attention_mask.to(torch.int32).cumsum(1) == 0).sum(1, dtype=torch.int32)
    windows = torch.empty(batch_size, 1, q_length, 2, device=device, dtype=torch.int32)
    windows[..., 0] = pads[:, None, None]
    windows[..., 1] = ends
    return windows


def require_windows(mask: Any, implementation: str | None, name: str) -> None:
    """Check that a mask is what `visible_windows` gave.

    Args:
        mask: what came as `attention_mask`.
        implementation: what the model is set to attend by.
        name: how transformers calls our attention.

    Raises:
        NotSupported: the model attends by another implementation, or the caller has made a mask.
    """
    if isinstance(mask, torch.Tensor) and mask.dtype == torch.int32 and mask.shape[-1] == 2:
        return
    if implementation != name:
        raise NotSupported(
            f"attn_implementation is {implementation!r}, and the model's attention is ours: "
            f"set_attn_implementation({name!r}), or disable(model) first"
        )
    raise NotSupported("attention_mask was made by the caller: only causal masks with left padding are supported")


def _check(attention_mask: torch.Tensor, q_length: int, q_offset: int | torch.Tensor) -> None:
    on_device = attention_mask.device.type != "cpu"
    if q_length == 1 and on_device and not settings.debug_check_indices:
        return
    tokens = int(q_offset) + q_length
    if attention_mask.shape[1] < tokens:
        raise NotSupported(f"attention_mask says nothing of {tokens - attention_mask.shape[1]} of {tokens} tokens")
    seen = attention_mask[:, :tokens].to(torch.int32)
    pads = (seen.cumsum(1) == 0).sum(1)
    if bool((seen.sum(1) + pads != tokens).any()):
        raise NotSupported("attention_mask has padding that is not on the left: tokenizer.padding_side = 'left'")
