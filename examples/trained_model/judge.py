"""How good the model is while it learns: loss on text that was held out, and answers to questions about notes."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F  # noqa: N812
from corpus import Corpus, passage
from indexer_loss import selected
from network import attended, finish, mlp, project, rotations
from retrieval import VALUE, prompt
from torch import Tensor, nn


@torch.no_grad()
def logits_of(model: nn.Module, tokens: Tensor, topk: int | None) -> Tensor:
    """Logits [b, s, vocabulary], with dense attention or with what the indexer selects."""
    config = model.config
    cos, sin = rotations(tokens.shape[1], config.qk_rope_head_dim, config.rope_parameters["rope_theta"], tokens.device)
    hidden = model.model.embed_tokens(tokens)
    for layer in model.model.layers:
        it = project(layer.self_attn, layer.input_layernorm(hidden), cos, sin)
        mask = None if topk is None else selected(it, topk)[:, None]
        hidden = mlp(layer, hidden + attended(layer.self_attn, it, mask))
    return finish(model, hidden)


def held_out_loss(model: nn.Module, corpus: Corpus, length: int, topk: int | None, count: int = 16) -> float:
    """Nats a byte over the second half of some passages."""
    numbers, device = random.Random(1), next(model.parameters()).device
    losses = []
    for _ in range(count):
        tokens = torch.tensor(list(passage(corpus.held_out, length, numbers)), device=device)[None]
        logits = logits_of(model, tokens, topk)[0, length // 2 : -1].float()
        losses.append(F.cross_entropy(logits, tokens[0, length // 2 + 1 :]))
    return float(torch.stack(losses).mean())


def answered(model: nn.Module, corpus: Corpus, length: int, topk: int | None, seeds: int = 100, notes: int = 8) -> int:
    """How many of so many prompts are answered rightly, greedily, all digits."""
    device, right = next(model.parameters()).device, 0
    for seed in range(seeds):
        numbers = random.Random(1000 + seed)
        text, answer = prompt(passage(corpus.held_out, length, numbers), length, notes, numbers)
        tokens = torch.tensor(list(text + answer), device=device)[None]
        guessed = logits_of(model, tokens, topk)[0, -VALUE - 1 : -1].argmax(-1)
        right += guessed.tolist() == list(answer)
    return right
