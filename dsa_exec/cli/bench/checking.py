"""Whether the results of a side are right, before anything is timed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dsa_exec.cli.bench.finite import is_finite, why_not_finite
from dsa_exec.cli.bench.passes import Results, Text, read, read_plainly
from dsa_exec.cli.bench.report import Check
from dsa_exec.cli.bench.sides import UNQUANTISED, torch_reference
from dsa_exec.integrations.transformers import DsaCache, NotFinite, attached

PLAIN = "plain transformers"
ON_TORCH = "our ops on torch, with the same formats"

# Of the reference's largest logit, and of what it selects. In 32 bits only the order of sums differs. A quantised value
# at a step's edge may go either way in another kernel, and so may a position at the edge of the selection. 16 bits
# round after every layer: two right implementations were 0.02 apart on the tiny model, and had 0.99 in common.
ALLOWED = {
    (False, False): (1e-3, 0.999),
    (False, True): (1e-2, 0.99),
    (True, False): (5e-2, 0.9),
    (True, True): (5e-2, 0.9),
}


class References:
    """What is right for one text: worked out once for each pair of formats.

    Args:
        model: not attached to.
        text: to read.
    """

    def __init__(self, model: Any, text: Text) -> None:
        self._model = model
        self._text = text
        self._known: dict[tuple[str, ...], Results] = {}

    def check(self, results: Results, formats: Sequence[str]) -> tuple[Check | None, str | None]:
        """Compare results with caches in these formats.

        Returns:
            What was found, and what is wrong with it, in words.

        Raises:
            NotFinite: the model's logits are NaN or infinite on plain transformers, so that nothing can be judged.
        """
        quantised = any(it != UNQUANTISED for it in formats)
        reference = ON_TORCH if quantised else PLAIN
        right = self._right(tuple(formats) if quantised else ())
        if not is_finite(right):
            plain = self._right(())
            if not is_finite(plain):
                raise NotFinite(why_not_finite(self._model, self._text, plain))
            return None, f"the logits of {reference} are NaN or infinite, and those of {PLAIN} are not"
        is_short = self._model.dtype != torch.float32
        return judge(right, results, self._text, reference, ALLOWED[is_short, quantised])

    def _right(self, formats: tuple[str, ...]) -> Results:
        """What is right with caches in these formats; of none: on plain transformers."""
        if formats not in self._known:
            self._known[formats] = self._read_on_torch(formats) if formats else read_plainly(self._model, self._text)
        return self._known[formats]

    def _read_on_torch(self, formats: Sequence[str]) -> Results:
        batch, tokens = self._text.prompt.shape
        room = tokens + self._text.following.shape[1]
        with torch_reference(formats), attached(self._model):
            cache = DsaCache.for_model(self._model, max_tokens=room, batch_size=batch)
            return read(self._model, self._text, cache, [tokens])


def judge(
    right: Results, found: Results, text: Text, reference: str, allowed: tuple[float, float]
) -> tuple[Check, str | None]:
    """Compare two results of one text.

    Args:
        right: of the reference; its logits are finite.
        found: what is judged.
        text: that both read.
        reference: what to call it.
        allowed: the difference of logits, as a share of the reference's largest, and the share of positions in common.

    Returns:
        What was found, and what is wrong with it, in words.
    """
    differences = (right.logits - found.logits).abs().amax(2)
    largest = float(differences.nan_to_num(nan=torch.inf).max())
    most = allowed[0] * float(right.logits.abs().max())
    likeliest = right.logits.argmax(2), found.logits.argmax(2)
    check = Check(
        reference=reference,
        largest_logit_difference=min(largest, torch.finfo(torch.float32).max),
        allowed_logit_difference=most,
        selected_in_common=_in_common(right, found, text),
        allowed_in_common=allowed[1],
        tokens_in_common=int((likeliest[0] == likeliest[1]).sum()),
        steps=likeliest[0].numel(),
    )
    if largest > most:
        request, step = divmod(
            int((differences.nan_to_num(nan=torch.inf) > most).flatten().nonzero()[0]), differences.shape[1]
        )
        where = "after the prompt" if step == 0 else f"after {step} more token{'' if step == 1 else 's'}"
        of = f" of request {request}" if len(differences) > 1 else ""
        tokens = ", ".join(
            f"{who} would go on with token {int(it[request, step])}"
            for who, it in zip((reference, "this"), likeliest, strict=True)
        )
        return check, (
            f"logits differ from {reference} by up to {largest:.3g}, and {most:.3g} is allowed; first {where}{of}, "
            f"where {tokens}"
        )
    if check.selected_in_common is not None and check.selected_in_common < allowed[1]:
        return check, (
            f"{check.selected_in_common:.1%} of the positions that {reference} selects are selected, and "
            f"{allowed[1]:.1%} are wanted"
        )
    return check, None


def _in_common(right: Results, found: Results, text: Text) -> float | None:
    """The share of what the reference selects for the last rows of the prompts that is selected."""
    if not right.selected or not found.selected:
        return None
    tokens, rows = text.prompt.shape[1], text.last_rows
    last = torch.arange(tokens - rows, tokens)[:, None]
    common = selected = 0
    for layer, positions in right.selected.items():
        left, other = (_chosen(it, last, tokens) for it in (positions, found.selected[layer]))
        common += int((left & other).sum())
        selected += int(left.sum())
    return common / selected if selected else 1.0


def _chosen(positions: torch.Tensor, last: torch.Tensor, tokens: int) -> torch.Tensor:
    """Which of the tokens each row chose, of those up to its own: bool [b, rows, tokens]."""
    counts = (positions >= 0) & (positions <= last)
    chosen = torch.zeros(*positions.shape[:2], tokens + 1, dtype=torch.bool)
    return chosen.scatter_(2, positions.long().where(counts, tokens), True)[..., :tokens]
