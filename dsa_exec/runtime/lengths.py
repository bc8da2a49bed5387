"""Which keys each query row sees, from what is known of the requests: prefill, decode, and the two speculative modes.

n is the number of draft tokens a request. `seq_lens` counts drafts in draft_extend and does not in target_verify.
"""

from __future__ import annotations

from typing import Literal

import torch

Mode = Literal["decode", "target_verify", "draft_extend"]


def ragged_windows(extend_lens: torch.Tensor, seq_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows of prefill rows over the keys of all requests, gathered one after the other.

    Args:
        extend_lens: int [b], new tokens of each request: its rows.
        seq_lens: int [b], all its tokens, the new ones included.

    Returns:
        starts, ends: int32 [sum(extend_lens)]. Row i of a request sees from the request's first key up to its own.
    """
    extend, lens = extend_lens.long(), seq_lens.long()
    request = torch.repeat_interleave(torch.arange(extend.shape[0], device=extend.device), extend)
    first_row = (extend.cumsum(0) - extend)[request]
    row = torch.arange(request.shape[0], device=extend.device) - first_row
    starts = (lens.cumsum(0) - lens)[request]
    ends = starts + (lens - extend)[request] + 1 + row
    return starts.to(torch.int32), ends.to(torch.int32)


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
