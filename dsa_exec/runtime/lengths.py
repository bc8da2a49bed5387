"""Which keys each query row sees, from what is known of the requests: prefill, decode, and the two speculative modes.

n is the number of draft tokens a request. `seq_lens` counts drafts in draft_extend and does not in target_verify.
"""

from __future__ import annotations

import torch

from dsa_exec.ops.step_metadata.lengths import Mode, cache_lens, expanded_lens

__all__ = ["Mode", "cache_lens", "expanded_lens", "ragged_windows"]


def ragged_windows(
    extend_lens: torch.Tensor, seq_lens: torch.Tensor, *, rows: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows of prefill rows over the keys of all requests, gathered one after the other.

    Args:
        extend_lens: int [b], new tokens of each request: its rows.
        seq_lens: int [b], all its tokens, the new ones included.
        rows: the sum of `extend_lens`. Read from the device, which waits for it, if not given.

    Returns:
        starts, ends: int32 [sum(extend_lens)]. Row i of a request sees from the request's first key up to its own.
    """
    extend, lens = extend_lens.long(), seq_lens.long()
    request = torch.repeat_interleave(torch.arange(extend.shape[0], device=extend.device), extend, output_size=rows)
    first_row = (extend.cumsum(0) - extend)[request]
    row = torch.arange(request.shape[0], device=extend.device) - first_row
    starts = (lens.cumsum(0) - lens)[request]
    ends = starts + (lens - extend)[request] + 1 + row
    return starts.to(torch.int32), ends.to(torch.int32)
