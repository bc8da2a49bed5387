"""Whether a row's selection is right: by scores in float64 as far as f32 can tell, and to the bit by f32 logits."""

from __future__ import annotations

import torch

NEAR = 1e-3
"""Scores that differ by this share of the k-th, or of their root mean square, may be taken for each other in f32."""


def wrong_by_scores(scores: torch.Tensor, picked: torch.Tensor, k: int) -> str | None:
    """What is wrong with a selection, in words; None if nothing is.

    Args:
        scores: f64 [n], of every position that the row sees.
        picked: int [k], the positions that were selected; a number beyond n stands for what is none of them.
        k: how many were asked for.
    """
    count = min(k, len(scores))
    chosen, rest = picked[:count].long(), picked[count:]
    if bool((rest != -1).any()):
        return f"selects more than the {count} positions that there are"
    if bool((chosen == -1).any()):
        return f"selects {int((chosen != -1).sum())} positions, wanted {count}"
    if count == 0:
        return None
    if bool(((chosen < 0) | (chosen >= len(scores))).any()):
        return f"selects a position outside of the {len(scores)} that it sees"
    if bool((chosen[1:] <= chosen[:-1]).any()):
        return "is not ascending, or has a position twice"
    kth = float(scores.topk(count).values[-1])
    near = NEAR * max(abs(kth), float(scores.square().mean().sqrt()))
    least = float(scores[chosen].min())
    if not least >= kth - near:
        return f"selects a score of {least:.6g}, where the k-th is {kth:.6g}"
    left = scores.index_fill(0, chosen, -torch.inf)
    if not float(left.max()) <= kth + near:
        return f"leaves out a score of {float(left.max()):.6g}, where the k-th is {kth:.6g}"
    return None


def wrong_by_logits(logits: torch.Tensor, picked: torch.Tensor, k: int) -> str | None:
    """Whether a selection is exactly that of a stable sort: of equal logits the lowest position wins.

    Args:
        logits: f32 [n], of every position that the row sees.
        picked: as in `wrong_by_scores`.
        k: likewise.
    """
    count = min(k, len(logits))
    wanted = logits.sort(descending=True, stable=True).indices[:count].sort().values
    differ = int((wanted != picked[:count].long()).sum())
    return f"differs from a stable top-k of our own logits at {differ} of {count} places" if differ else None


def positions_of(slots: torch.Tensor, picked: torch.Tensor) -> torch.Tensor:
    """Positions of slots in a request, int64 [k]: -1 stays, and a slot of none of its positions is as many as it has.

    Args:
        slots: int64 [n], where each position that the row sees is.
        picked: int [k], slots or -1.
    """
    ordered, order = slots.sort()
    picked = picked.long()
    if len(slots) == 0:
        return picked.where(picked == -1, 0)
    place = torch.searchsorted(ordered, picked).clamp_(max=len(slots) - 1)
    found = order[place].where(ordered[place] == picked, len(slots))
    return found.where(picked != -1, -1)
