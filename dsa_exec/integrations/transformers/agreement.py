"""How far two continuations of one prompt agree."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dsa_exec.integrations.transformers.continuation import Continuation

ROWS_COMPARED_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two continuations of the same prompt agree.

    Attributes:
        first_divergence: which new token is the first to differ, from 0; None if none does.
        selected_in_common: of the positions that the reference selects for the prompt's rows, the share that the other
            selects too; None where one of them selected nothing, but attended to all.
        largest_logit_difference: over all steps where both have read the same.
    """

    first_divergence: int | None
    selected_in_common: float | None
    largest_logit_difference: float


def agreement(reference: Continuation, other: Continuation, *, forced: bool = False) -> Agreement:
    """Compare two continuations of the same prompt, of at least a token each.

    Args:
        reference: what counts as right.
        other: what is judged.
        forced: the reference read the other's tokens, so that both have read the same in all steps.
    """
    pairs = enumerate(zip(reference.tokens, other.tokens, strict=False))
    divergence = next((step for step, (left, right) in pairs if left != right), None)
    if divergence is None and len(reference.tokens) != len(other.tokens):
        divergence = min(len(reference.tokens), len(other.tokens))
    same_history = min(len(reference.logits), len(other.logits))
    if divergence is not None and not forced:
        same_history = min(same_history, divergence + 1)
    difference = (reference.logits[:same_history] - other.logits[:same_history]).abs().max()
    return Agreement(divergence, _in_common(reference.selections, other.selections), float(difference))


def _in_common(reference: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> float | None:
    if not reference or not other:
        return None
    common = selected = 0
    for layer, positions in reference.items():
        for first in range(0, len(positions), ROWS_COMPARED_AT_ONCE):
            part = slice(first, first + ROWS_COMPARED_AT_ONCE)
            left, right = (_chosen(it[part], first, len(positions)) for it in (positions, other[layer]))
            common += int((left & right).sum())
            selected += int(left.sum())
    return common / selected if selected else 1.0


def _chosen(positions: torch.Tensor, first_row: int, width: int) -> torch.Tensor:
    """Which of `width` positions each row chose: bool [rows, width]."""
    rows = torch.arange(first_row, first_row + len(positions))[:, None]
    counts = (positions >= 0) & (positions <= rows)
    chosen = torch.zeros(len(positions), width + 1, dtype=torch.bool)
    return chosen.scatter_(1, positions.long().where(counts, width), True)[:, :width]
