"""Forward passes over a text: a prompt, then given tokens one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from dsa_exec.ops.index_select import Selection

LAST_ROWS = 128
"""So many rows at the end of a prompt are compared by what they select."""

PLAIN_BYTES = 512 * 2**20
"""Plain transformers makes its scores of rows by index heads by keys at once: rows are given to it in such chunks."""


@dataclass(frozen=True, slots=True)
class Text:
    """The tokens of a batch.

    Attributes:
        prompt: int64 [b, tokens].
        following: int64 [b, steps], which are read after it.
    """

    prompt: torch.Tensor
    following: torch.Tensor

    @property
    def last_rows(self) -> int:
        """How many rows of the prompt are compared by what they select."""
        return min(self.prompt.shape[1], LAST_ROWS)


@dataclass(frozen=True, slots=True)
class Results:
    """What came of a text.

    Attributes:
        logits: f32 [b, 1 + steps, vocabulary] on the CPU: after the prompt, and after each token.
        selected: for each layer with an indexer, int32 [b, last_rows, k] on the CPU; none where nothing is selected.
    """

    logits: torch.Tensor
    selected: dict[int, torch.Tensor]


def text_of(loaded: Any, passage: str, batch: int, tokens: int, steps: int) -> Text:
    """A passage as often as it takes, for each request from another place on."""
    ids = torch.tensor(loaded.tokenizer.encode(passage), device=loaded.model.device)
    places = torch.arange(tokens + steps, device=ids.device) + 61 * torch.arange(batch, device=ids.device)[:, None]
    rows = ids[places % len(ids)]
    return Text(rows[:, :tokens], rows[:, tokens:])


def forward(model: Any, inputs: torch.Tensor, past: Any) -> torch.Tensor:
    """One pass: the logits [b, vocabulary] of the last token."""
    out = model(inputs, past_key_values=past, use_cache=True, logits_to_keep=1)
    logits: torch.Tensor = out.logits[:, -1]
    return logits


def read(model: Any, text: Text, past: Any, chunks: list[int]) -> Results:
    """Read a prompt in chunks of so many rows, then the tokens after it."""
    return read_on(model, text, past, read_prompt(model, text, past, chunks))


def read_prompt(model: Any, text: Text, past: Any, chunks: list[int]) -> Results:
    """Read a prompt in chunks of so many rows. Its results have the logits after it, [b, 1, vocabulary]."""
    selected: dict[int, torch.Tensor] = {}
    *before, last = text.prompt.split(chunks, 1)
    for inputs in before:
        forward(model, inputs, past)
    with _recorded(model, text, selected):
        logits = forward(model, last, past)
    return Results(logits[:, None].float().cpu(), selected)


def read_on(model: Any, text: Text, past: Any, prompt: Results) -> Results:
    """Read the tokens after a prompt that has these results: those of both."""
    logits = [forward(model, token, past) for token in text.following.split(1, 1)]
    return Results(torch.cat((prompt.logits, torch.stack(logits, 1).float().cpu()), 1), prompt.selected)


def read_plainly(model: Any, text: Text) -> Results:
    """Read a text on plain transformers."""
    config = model.config
    batch, tokens = text.prompt.shape
    row_bytes = 4 * batch * tokens * (config.index_n_heads + config.num_attention_heads)
    rows, left = max(1, PLAIN_BYTES // row_bytes), tokens - text.last_rows
    chunks = [min(rows, left - first) for first in range(0, left, rows)]
    return read(model, text, DynamicCache(config=config), [*chunks, text.last_rows])


@contextlib.contextmanager
def _recorded(model: Any, text: Text, selected: dict[int, torch.Tensor]) -> Iterator[None]:
    """Note what the last rows of a pass over the prompt select."""
    batch, rows = text.prompt.shape[0], text.last_rows

    def record(indexer: Any, _: Any, made: Selection | torch.Tensor | None) -> None:
        if made is not None:
            positions = made.indices if isinstance(made, Selection) else made
            selected[indexer.layer_idx] = positions.unflatten(0, (batch, -1))[:, -rows:].cpu()

    def record_plain(indexer: Any, _: Any, made: torch.Tensor | Selection | None) -> None:
        record(indexer, _, made.flatten(0, 1) if isinstance(made, torch.Tensor) and made.ndim == 3 else made)

    indexers = [getattr(layer.self_attn, "indexer", None) for layer in model.model.layers]
    handles = [indexer.register_forward_hook(record_plain) for indexer in indexers if indexer is not None]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
