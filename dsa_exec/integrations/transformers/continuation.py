"""Continues prompts token by token, and keeps a record of what happened that can be looked at at any time."""

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
from dsa_exec.integrations.transformers.sampling import Choose, likeliest
from dsa_exec.ops.index_select import Selection

PADDING = 0
"""What stands to the left of a shorter prompt. Nothing reads it."""


@dataclass(slots=True)
class Continuation:
    """What a model did with a prompt.

    Attributes:
        tokens: the new tokens.
        logits: f32 [len(tokens), vocabulary], on the CPU: what each was chosen from. No row without a record.
        selections: for each layer with an indexer, int32 [prompt, k] on the CPU: the positions that each prompt row
            selected, in no particular order; what is negative or lies after the row counts as nothing. No layer where
            rows attended to all that they see.
        prefill_s: seconds until the first new token.
        decode_s: seconds for the others.
        ended: the model ended its text, before or with the last token that was wanted.
    """

    tokens: list[int]
    logits: torch.Tensor
    selections: dict[int, torch.Tensor]
    prefill_s: float
    decode_s: float
    ended: bool = False


class Generation:
    """Prompts that a model continues together, until each has what it wants or ends.

    After an error or an interrupt within `run`, the tokens until then are there.

    Args:
        model: a causal language model.
        prompts: token ids of each; shorter ones are padded on the left.
        max_new_tokens: the most for each.
        choose: how each chooses its tokens; the likeliest if not given.
        cache: ours, under `attached(model)`, with room for the batch; transformers' own if not given.
        forced: tokens of each to read in the place of those that are chosen, which end nothing. So many are chosen.
        record: keep logits and selections.

    Raises:
        RangeError: no prompt, or no token wanted.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: Sequence[int],
        *,
        choose: Sequence[Choose] | None = None,
        cache: DsaCache | None = None,
        forced: Sequence[Sequence[int]] | None = None,
        record: bool = True,
    ) -> None:
        args = Arguments("Generation")
        for number in max_new_tokens:
            args.number(number, "max_new_tokens", low=1)
        if not prompts or not all(len(prompt) for prompt in prompts):
            raise RangeError("Generation", "prompt", "is empty", "at least one token")
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self._model = model
        self._prompts = prompts
        self._wanted = list(max_new_tokens) if forced is None else [len(tokens) for tokens in forced]
        self._choose = choose or [likeliest] * len(prompts)
        self._forced = forced
        self._past: Any = DynamicCache(config=model.config) if cache is None else cache
        self._record = record
        self._ends = _end_tokens(model) if forced is None else set()
        self._logits: list[list[torch.Tensor]] = [[] for _ in prompts]
        self._selections: dict[int, torch.Tensor] = {}
        self._moments: list[float] = []

    def run(self, on_token: Callable[[int], None] = lambda _: None) -> None:
        """Continue to the end.

        Args:
            on_token: hears the number of a prompt after each of its new tokens.

        Raises:
            NotFinite: the model's logits are no numbers to choose by.
        """
        inputs, mask, positions = self._padded()
        self._moments = [time.perf_counter()]
        recording = _recorded_selections(self._model, self._selections) if self._record else contextlib.nullcontext()
        with torch.no_grad(), recording:
            while going := [request for request in range(len(self.tokens)) if not self.is_done(request)]:
                out = self._model(
                    inputs,
                    attention_mask=mask,
                    position_ids=positions,
                    past_key_values=self._past,
                    use_cache=True,
                    logits_to_keep=1,
                )
                logits = out.logits[:, -1].float().cpu()  # waits for the device
                self._moments = [*self._moments[:2], time.perf_counter()]
                for request in going:
                    self._take(request, logits[request])
                    on_token(request)
                inputs = torch.tensor([[self._last(it)] for it in range(len(self.tokens))], device=inputs.device)
                if mask is not None and positions is not None:
                    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
                    positions = positions[:, -1:] + 1

    def is_done(self, request: int) -> bool:
        """Whether a prompt has all its tokens."""
        return len(self.tokens[request]) >= self._wanted[request] or self.has_ended(request)

    def has_ended(self, request: int) -> bool:
        """Whether the model ended the text of a prompt."""
        tokens = self.tokens[request]
        return bool(tokens) and tokens[-1] in self._ends

    @property
    def prefill_s(self) -> float:
        """Seconds until the first token of each prompt; 0 before it."""
        return self._moments[1] - self._moments[0] if len(self._moments) > 1 else 0.0

    @property
    def decode_s(self) -> float:
        """Seconds from then until the last token so far."""
        return self._moments[-1] - self._moments[1] if len(self._moments) > 1 else 0.0

    def __getitem__(self, request: int) -> Continuation:
        """What there is of one prompt."""
        logits = self._logits[request]
        made = len(self.tokens[request])
        if self._record:
            made = min(made, len(logits))  # an interrupt may come between the two
        empty = torch.empty(0, self._model.config.vocab_size)
        return Continuation(
            tokens=self.tokens[request][:made],
            logits=torch.stack(logits[:made]) if self._record and made else empty,
            selections={layer: self._rows_of(request, it) for layer, it in self._selections.items()},
            prefill_s=self.prefill_s,
            decode_s=self.decode_s,
            ended=self.has_ended(request),
        )

    def _padded(self) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Inputs, mask and positions of the first pass; no mask where there is no padding."""
        longest = max(map(len, self._prompts))
        rows = [[PADDING] * (longest - len(prompt)) + list(prompt) for prompt in self._prompts]
        inputs = torch.tensor(rows, device=self._model.device)
        if all(len(prompt) == longest for prompt in self._prompts):
            return inputs, None, None
        seen = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in self._prompts]
        mask = torch.tensor(seen, device=self._model.device)
        return inputs, mask, (mask.cumsum(1) - 1).clamp(min=0)

    def _take(self, request: int, logits: torch.Tensor) -> None:
        if not bool(logits.isfinite().all()):
            raise NotFinite(self._why_not_finite(request))
        if self._record:
            self._logits[request].append(logits)
        self.tokens[request].append(self._choose[request](logits))

    def _last(self, request: int) -> int:
        """What a prompt reads next; one that is done reads on, since the batch stays as it is."""
        tokens = self.tokens[request] if self._forced is None else self._forced[request]
        made = min(len(tokens), len(self.tokens[request]))
        return tokens[made - 1]

    def _rows_of(self, request: int, positions: torch.Tensor) -> torch.Tensor:
        """The rows of one prompt among those of the batch, int32 [prompts * longest, k]."""
        longest = max(map(len, self._prompts))
        return positions[(request + 1) * longest - len(self._prompts[request]) : (request + 1) * longest]

    def _why_not_finite(self, request: int) -> str:
        model = self._model
        damaged = next((name for name, it in model.named_parameters() if not bool(it.isfinite().all())), None)
        if damaged is not None:
            return f"the model's logits are NaN or infinite, as is its parameter {damaged}"
        read_tokens = len(self._prompts[request]) + len(self.tokens[request])
        return f"the model's logits are NaN or infinite after {read_tokens} tokens: they overflow in {model.dtype}"


@contextlib.contextmanager
def _recorded_selections(model: Any, selections: dict[int, torch.Tensor]) -> Iterator[None]:
    """Note the selection of each layer's indexer in the first pass, if that selects."""
    seen: set[int] = set()

    def record(indexer: Any, _: Any, selected: Selection | torch.Tensor | None) -> None:
        if indexer.layer_idx not in seen and selected is not None:
            positions = selected.indices if isinstance(selected, Selection) else selected.flatten(0, 1)
            selections[indexer.layer_idx] = positions.cpu()
        seen.add(indexer.layer_idx)

    indexers = [getattr(layer.self_attn, "indexer", None) for layer in model.model.layers]
    handles = [indexer.register_forward_hook(record) for indexer in indexers if indexer is not None]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _end_tokens(model: Any) -> set[int]:
    """The tokens that end a text."""
    ends = model.generation_config.eos_token_id
    return set(ends) if isinstance(ends, list) else ({ends} - {None})
