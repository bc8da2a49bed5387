"""What teaches the indexer: its scores' distribution shall be that of the attention (DeepSeek-V3.2's report).

The target is the attention of all heads together, normalised over the keys. In the warm-up both run over all keys that
a row sees, later over those that were selected.
"""

from __future__ import annotations

import torch
from network import Layer, index_scores
from torch import Tensor

ROWS = 512
"""Rows at a time: scores of 32 heads for every pair of tokens are large."""


def future(first: int, rows: int, keys: int, device: torch.device) -> Tensor:
    """Bool [rows, keys]: keys that rows from `first` on do not see."""
    row = torch.arange(first, first + rows, device=device)
    return torch.arange(keys, device=device)[None] > row[:, None]


@torch.no_grad()
def attention_shares(it: Layer, scale: float, first: int, rows: int, keep: Tensor | None) -> Tensor:
    """f32 [b, rows, keys]: how the attention of some rows is shared out, over all heads."""
    last = first + rows
    scores = (it.q[:, :, first:last] @ it.k[:, :, :last].transpose(-1, -2)).float() * scale
    scores.masked_fill_(future(first, rows, last, scores.device), -torch.inf)
    if keep is not None:
        scores.masked_fill_(~keep[:, None, :, :last], -torch.inf)
    return scores.softmax(-1).mean(1)


@torch.no_grad()
def selected(it: Layer, topk: int) -> Tensor:
    """Bool [b, s, s]: the keys that each row selects, by the indexer."""
    b, s = it.index_k.shape[:2]
    keep = torch.zeros(b, s, s, dtype=torch.bool, device=it.index_k.device)
    for first in range(0, s, ROWS):
        last = min(first + ROWS, s)
        scores = index_scores(it.index_q[:, first:last], it.index_k[:, :last], it.index_weights[:, first:last])
        hidden = future(first, last - first, last, scores.device)
        scores.masked_fill_(hidden, -torch.inf)
        best = scores.topk(min(topk, last), dim=-1).indices
        keep[:, first:last, :last].scatter_(-1, best, True)
        keep[:, first:last, :last] &= ~hidden
    return keep


def teach(it: Layer, scale: float, keep: Tensor | None = None) -> Tensor:
    """Add the gradients of the indexer's loss to its parameters.

    Rows are taken some at a time: gradients with regard to the projections are added up, and passed back once.

    Args:
        it: the layer; its indexer tensors have a graph.
        scale: of the attention's scores.
        keep: bool [b, s, s], the selected keys; None for all.

    Returns:
        The mean divergence of a row, in nats.
    """
    leaves = [part.detach().requires_grad_() for part in (it.index_q, it.index_k, it.index_weights)]
    b, s = leaves[1].shape[:2]
    total = torch.zeros((), device=leaves[1].device)
    for first in range(0, s, ROWS):
        rows = min(ROWS, s - first)
        last = first + rows
        target = attention_shares(it, scale, first, rows, None if keep is None else keep[:, first:last])
        scores = index_scores(leaves[0][:, first:last], leaves[1][:, :last], leaves[2][:, first:last])
        scores = scores.masked_fill(future(first, rows, last, scores.device), -torch.inf)
        if keep is not None:
            scores = scores.masked_fill(~keep[:, first:last, :last], -torch.inf)
        guess = scores.log_softmax(-1).clamp(min=-1e4)
        loss = (target * (target.clamp(min=1e-12).log() - guess)).sum() / (b * s)
        loss.backward()
        total += loss.detach()
    torch.autograd.backward([it.index_q, it.index_k, it.index_weights], [leaf.grad for leaf in leaves])
    return total
