"""Greedy continuation with a record of what happened, and the comparison of two such records."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError
from dsa_exec.integrations.transformers.cache import DsaCache
from dsa_exec.integrations.transformers.errors import NotFinite
from dsa_exec.ops.index_select import Selection

ROWS_COMPARED_AT_ONCE = 256


@dataclass(slots=True)
class Continuation:
    """What a model did with a prompt.

    Attributes:
        tokens: the new tokens.
        logits: f32 [len(tokens), vocabulary], on the CPU: what each was chosen from.
        selections: for each layer with an indexer, int32 [prompt, k] on the CPU: the positions that each prompt row
            selected, in no particular order; what is negative or lies after the row counts as nothing. No layer where
            rows attended to all that they see.
        prefill_s: seconds until the first new token.
        decode_s: seconds for the others.
    """

    tokens: list[int]
    logits: torch.Tensor
    selections: dict[int, torch.Tensor]
    prefill_s: float
    decode_s: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two continuations of the same prompt agree.

    Attributes:
        first_divergence: which new token is the first to differ, from 0; None if none does.
        selected_in_common: of the positions that the reference selects for the prompt's rows, the share that the other
            selects too; None where one of them selected nothing, but attended to all.
        largest_logit_difference: over all steps up to the first divergence, where both have read the same.
    """

    first_divergence: int | None
    selected_in_common: float | None
    largest_logit_difference: float


def continue_greedily(
    model: Any,
    prompt: Sequence[int],
    max_new_tokens: int,
    *,
    cache: DsaCache | None = None,
    on_token: Callable[[], None] = lambda: None,
) -> Continuation:
    """Continue one prompt with the likeliest token each time, whatever the checkpoint says about sampling.

    Args:
        model: a causal language model.
        prompt: token ids.
        max_new_tokens: at most so many; fewer if the model ends its text.
        cache: ours, under `attached(model)`; transformers' own if not given.
        on_token: called after each new token.

    Raises:
        RangeError: no prompt, or no token wanted.
        NotFinite: the model's logits are no numbers to choose by.
    """
    args = Arguments("continue_greedily")
    args.number(max_new_tokens, "max_new_tokens", low=1)
    if not len(prompt):
        raise RangeError("continue_greedily", "prompt", "is empty", "at least one token")
    ends = _end_tokens(model)
    tokens: list[int] = []
    logits: list[torch.Tensor] = []
    past: Any = DynamicCache(config=model.config) if cache is None else cache
    inputs = torch.tensor([list(prompt)], device=model.device)
    moments = [time.perf_counter()]
    with torch.no_grad(), _recorded_selections(model) as selections:
        while len(tokens) < max_new_tokens and not (tokens and tokens[-1] in ends):
            out = model(inputs, past_key_values=past, use_cache=True, logits_to_keep=1)
            logits.append(out.logits[0, -1].float().cpu())  # waits for the device
            if not bool(logits[-1].isfinite().all()):
                raise NotFinite(_why_not_finite(model, len(prompt) + len(tokens)))
            tokens.append(int(logits[-1].argmax()))
            inputs = torch.tensor([tokens[-1:]], device=model.device)
            moments.append(time.perf_counter())
            on_token()
    return Continuation(
        tokens=tokens,
        logits=torch.stack(logits),
        selections=selections,
        prefill_s=moments[1] - moments[0],
        decode_s=moments[-1] - moments[1],
    )


def agreement(reference: Continuation, other: Continuation) -> Agreement:
    """Compare two continuations of the same prompt."""
    pairs = enumerate(zip(reference.tokens, other.tokens, strict=False))
    divergence = next((step for step, (left, right) in pairs if left != right), None)
    if divergence is None and len(reference.tokens) != len(other.tokens):
        divergence = min(len(reference.tokens), len(other.tokens))
    same_history = min(len(reference.logits), len(other.logits))
    if divergence is not None:
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


@contextlib.contextmanager
def _recorded_selections(model: Any) -> Iterator[dict[int, torch.Tensor]]:
    """The selection of each layer's indexer in the first pass, if that selects."""
    selections: dict[int, torch.Tensor] = {}
    seen: set[int] = set()

    def record(indexer: Any, _: Any, selected: Selection | torch.Tensor | None) -> None:
        if indexer.layer_idx not in seen and selected is not None:
            positions = selected.indices if isinstance(selected, Selection) else selected[0]
            selections[indexer.layer_idx] = positions.cpu()
        seen.add(indexer.layer_idx)

    indexers = [getattr(layer.self_attn, "indexer", None) for layer in model.model.layers]
    handles = [indexer.register_forward_hook(record) for indexer in indexers if indexer is not None]
    try:
        yield selections
    finally:
        for handle in handles:
            handle.remove()


def _why_not_finite(model: Any, read_tokens: int) -> str:
    damaged = next((name for name, it in model.named_parameters() if not bool(it.isfinite().all())), None)
    if damaged is not None:
        return f"the model's logits are NaN or infinite, as is its parameter {damaged}"
    return f"the model's logits are NaN or infinite after {read_tokens} tokens: they overflow in {model.dtype}"


def _end_tokens(model: Any) -> set[int]:
    """The tokens that end a text."""
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else ({ends} - {None})
