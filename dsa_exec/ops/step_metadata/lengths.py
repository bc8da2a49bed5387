"""How many tokens requests have in the cache, and how many each row sees: decode, and the two speculative modes.

n is the number of draft tokens a request. `seq_lens` counts drafts in draft_extend and does not in target_verify.
"""

from __future__ import annotations

from typing import Literal

import torch

Mode = Literal["decode", "target_verify", "draft_extend"]


def cache_lens(mode: Mode, seq_lens: torch.Tensor, n: int = 1) -> torch.Tensor:
    """Tokens of each request that are in the cache when the rows run: int32 [b]."""
    return (seq_lens + n if mode == "target_verify" else seq_lens).to(torch.int32)


def expanded_lens(mode: Mode, seq_lens: torch.Tensor, n: int = 1) -> torch.Tensor:
    """Tokens that each row sees, with n rows a request (1 in decode).

    Args:
        mode: the step's mode.
        seq_lens: int [b].
        n: draft tokens a request.

    Returns:
        int32 [b * n]: seq+1 .. seq+n in target_verify; seq-n+1 .. seq in draft_extend, never below 0; seq in decode.
    """
    if mode == "decode":
        return seq_lens.to(torch.int32)
    last = cache_lens(mode, seq_lens, n)[:, None]
    steps = torch.arange(n, device=seq_lens.device) - n + 1
    return (last + steps).clamp(min=0).flatten().to(torch.int32)
