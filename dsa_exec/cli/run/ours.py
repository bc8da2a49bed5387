"""Prompts on our ops, all that are given at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from dsa_exec.cli.run.stages import Stages
from dsa_exec.integrations.transformers import DsaCache, attached
from dsa_exec.integrations.transformers.continuation import Generation
from dsa_exec.integrations.transformers.sampling import Sampling


class Ours:
    """A batch of prompts on our ops. After an interrupt, `generation` has what there is until then.

    Args:
        model: to run.
        prompts: token ids of each.
        max_new_tokens: the most for each.
        sampling: how tokens are chosen.
        first_request: the number of the first prompt, for its draws.
        record: keep what a comparison needs.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        *,
        sampling: Sampling,
        first_request: int = 0,
        record: bool,
    ) -> None:
        self._model = model
        self._read_tokens = sum(map(len, prompts))
        room = max(map(len, prompts)) + max(max_new_tokens)
        choose = [sampling.chooser(first_request + number) for number in range(len(prompts))]
        with attached(model):
            cache = DsaCache.for_model(model, max_tokens=room, batch_size=len(prompts))
        self.generation = Generation(model, prompts, max_new_tokens, choose=choose, cache=cache, record=record)

    def run(self, stages: Stages, on_token: Callable[[int], None]) -> None:
        """Continue them.

        Args:
            stages: where to count the time, also of a part.
            on_token: hears the number of a prompt within the batch after each of its tokens.
        """
        start = time.perf_counter()
        try:
            with attached(self._model):
                self.generation.run(on_token)
        finally:
            self._count(stages, time.perf_counter() - start)

    def _count(self, stages: Stages, spent_s: float) -> None:
        """Count whole passes with their tokens, and the time of one that was interrupted without any."""
        made = self.generation
        if not made.prefill_s:
            stages.add("prefill", spent_s)
            return
        stages.add("prefill", made.prefill_s, self._read_tokens)
        stages.add("decode", made.decode_s, sum(max(len(tokens) - 1, 0) for tokens in made.tokens))
        if not all(made.is_done(request) for request in range(len(made.tokens))):
            stages.add("decode", max(spent_s - made.prefill_s - made.decode_s, 0.0))
