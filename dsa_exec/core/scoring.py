"""Indexer scores: the arithmetic by which both logits ops are specified."""

from __future__ import annotations

import torch


def index_scores(
    q: torch.Tensor, keys: torch.Tensor, scales: torch.Tensor | None, head_weights: torch.Tensor, out: torch.Tensor
) -> None:
    """out[i, j] = scales[j] * sum over h of head_weights[i, h] * relu(q[i, h] . keys[j]), in f32.

    Args:
        q: e4m3 or float [t, h, d].
        keys: [s, d].
        scales: f32 [s], or None for 1.
        head_weights: f32 [t, h].
        out: f32 [t, s], written in place.
    """
    out.zero_()
    # Copies, so that what a processor sums first does not depend on where the rows begin and how far apart they are.
    columns = _copied(keys).T
    for head in range(q.shape[1]):  # a head at a time: the scores of all heads at once are h times the result
        scores = (_copied(q[:, head]) @ columns).relu_()
        out.addcmul_(scores, head_weights[:, head, None])
        del scores  # before there are those of the next head
    if scales is not None:
        out.mul_(scales)


def _copied(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
