"""Greedy continuation of one prompt, with a record that can be compared with another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsa_exec.integrations.transformers.agreement import Agreement, agreement
from dsa_exec.integrations.transformers.cache import DsaCache
from dsa_exec.integrations.transformers.continuation import Continuation, Generation

__all__ = ["Agreement", "Continuation", "agreement", "continue_greedily"]


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
    generation = Generation(model, [prompt], [max_new_tokens], cache=cache)
    generation.run(lambda _: on_token())
    return generation[0]
