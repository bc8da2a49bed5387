"""How many tokens of padding each request has, which a cache keeps: slots are counted from the first real token."""

from __future__ import annotations

import torch

from dsa_exec.integrations.transformers.errors import NotSupported

NOTHING_SAID = -1
"""Stands for the padding of a request in a pass without a mask: it has what the passes before said."""


def pads_of_pass(windows: torch.Tensor, remembered: torch.Tensor) -> torch.Tensor:
    """The padding that the requests have in a pass: what the cache remembers, once a request has had a token.

    Until then, what the pass says of the tokens that come now. Asks nothing of the device.

    Args:
        windows: int32 [b, 1, q, 2], what `visible_windows` gave.
        remembered: int32 [b], after the passes before.

    Returns:
        int32 [b], which the cache remembers from this pass on.
    """
    seen, end = windows[:, 0, 0, 1] - 1, windows[:, 0, -1, 1]
    said = torch.minimum(torch.maximum(windows[:, 0, 0, 0], seen), end)
    return remembered.where(remembered < seen, said)


def require_same_padding(windows: torch.Tensor, pads: torch.Tensor) -> None:
    """Check that a pass says of its padding what the cache remembers. Waits for the device.

    Args:
        windows: int32 [b, 1, q, 2], what `visible_windows` gave.
        pads: int32 [b], of the pass.

    Raises:
        NotSupported: it says another number for a request.
    """
    require_same_pads(*torch.stack([said_pads(windows), pads]).tolist())


def require_same_pads(said: list[int], pads: list[int]) -> None:
    """The same for numbers that were read.

    Raises:
        NotSupported: one of them differs.
    """
    for request, (came, kept) in enumerate(zip(said, pads, strict=True)):
        if came not in (kept, NOTHING_SAID):
            raise NotSupported(
                f"attention_mask has {came} tokens of padding for request {request}, and the passes before had {kept}: "
                "tokens in the cache cannot be masked later, nor padding be shown; pass the mask that they had and "
                "ones for new tokens, or begin with another cache"
            )


def said_pads(windows: torch.Tensor) -> torch.Tensor:
    """What a pass says of its padding, int32 [b], as far as there are tokens; -1 for nothing."""
    return torch.minimum(windows[:, 0, 0, 0], windows[:, 0, -1, 1])
