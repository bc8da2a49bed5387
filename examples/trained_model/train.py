"""Trains the tiny model that `dsa run` shows: a DeepSeek-V3.2 of four layers over bytes, by the stages of its report.

    python train.py --out model            # a GPU, some minutes
    python train.py --out model --smoke    # a few steps of a few tokens, anywhere

Dense training first; then the indexer alone, which learns to foresee where dense attention goes; then all of it, with
attention to what was selected. What is written is a checkpoint as transformers loads it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from corpus import Corpus, installed_sources, passage
from indexer_loss import selected, teach
from judge import answered, held_out_loss
from network import attended, finish, mlp, project, rotations
from retrieval import sample
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import DeepseekV32Config, DeepseekV32ForCausalLM

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Stage:
    """One of the stages.

    Attributes:
        name: dense, indexer (attention is dense, the indexer alone learns) or sparse.
        length: bytes of a sequence.
        batch: sequences of a step.
        steps: how many.
        rate: the highest learning rate of the model; 0: it does not learn.
        last_rate: what the rate falls to, as a share of it, along a cosine.
        index_rate: of the indexer.
        notes, asked: at most so many in a sequence.
    """

    name: str
    length: int
    batch: int
    steps: int
    rate: float
    last_rate: float = 1.0
    index_rate: float = 0.0
    notes: int = 24
    asked: int = 24


STAGES = (
    Stage("dense", 512, 256, 3000, 3e-3, 0.7, notes=8, asked=8),
    Stage("dense", 4096, 24, 3000, 2e-3, 0.05),
    Stage("indexer", 4096, 8, 400, 0.0, 0.2, index_rate=2e-3),
    Stage("sparse", 4096, 8, 300, 1e-4, 0.1, index_rate=4e-4),
)
SMOKE = (
    Stage("dense", 128, 2, 3, 3e-3, notes=2, asked=2),
    Stage("indexer", 128, 2, 2, 0.0, index_rate=2e-3, notes=2, asked=2),
    Stage("sparse", 128, 2, 2, 3e-4, index_rate=4e-4, notes=2, asked=2),
)
WARM_UP = 100
WEIGHT = 4.0
"""Of an answer's digits in the loss."""


class Sequences(IterableDataset):
    """Endless sequences: passages with some notes and questions, few or as many as the stage has."""

    def __init__(self, corpus: Corpus, stage: Stage, seed: int) -> None:
        self.corpus, self.stage, self.seed = corpus, stage, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = torch.utils.data.get_worker_info()
        numbers = random.Random(f"{self.seed} {worker.id if worker else 0}")
        stage = self.stage
        while True:
            text = passage(self.corpus.train, stage.length, numbers)
            asked = numbers.randint(0, stage.asked)
            it = sample(text, stage.length, numbers.randint(1, stage.notes), asked, numbers, WEIGHT)
            yield torch.tensor(list(it.text)), torch.tensor(it.weights)


def block(layer: nn.Module, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """A layer with dense attention."""
    it = project(layer.self_attn, layer.input_layernorm(hidden), cos, sin)
    return mlp(layer, hidden + attended(layer.self_attn, it, None))


def forward(model: nn.Module, tokens: Tensor, stage: Stage, run_block) -> tuple[Tensor, Tensor]:
    """Logits, and the indexer's divergence, whose gradients are added on the way."""
    config = model.config
    cos, sin = rotations(tokens.shape[1], config.qk_rope_head_dim, config.rope_parameters["rope_theta"], tokens.device)
    hidden = model.model.embed_tokens(tokens)
    divergence = torch.zeros((), device=tokens.device)
    for layer in model.model.layers:
        if stage.name == "dense":
            hidden = run_block(layer, hidden, cos, sin)
            continue
        with torch.set_grad_enabled(stage.rate > 0):
            normed = layer.input_layernorm(hidden)
        it = project(layer.self_attn, normed, cos, sin)
        keep = selected(it, config.index_topk) if stage.name == "sparse" else None
        divergence += teach(it, layer.self_attn.scaling, keep)
        with torch.set_grad_enabled(stage.rate > 0):
            hidden = mlp(layer, hidden + attended(layer.self_attn, it, None if keep is None else keep[:, None]))
    return finish(model, hidden), divergence


def run_stage(model: nn.Module, stage: Stage, corpus: Corpus, number: int, workers: int, *, compiled: bool) -> None:
    """Train for one stage."""
    device = next(model.parameters()).device
    index = [value for name, value in model.named_parameters() if ".indexer." in name]
    rest = [value for name, value in model.named_parameters() if ".indexer." not in name]
    for value in rest:
        value.requires_grad_(stage.rate > 0)
    decayed = [it for it in rest if it.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": 0.1, "most": stage.rate},
        {"params": [it for it in rest if it.ndim == 1], "weight_decay": 0.0, "most": stage.rate},
        {"params": index, "weight_decay": 0.0, "most": stage.index_rate},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=device.type == "cuda")
    run_block = torch.compile(block, dynamic=False) if compiled else block
    loader = DataLoader(Sequences(corpus, stage, number), stage.batch, num_workers=workers, pin_memory=workers > 0)
    started, precise = time.monotonic(), contextlib.nullcontext()
    if device.type == "cuda":
        precise = torch.autocast("cuda", dtype=torch.bfloat16)
    for step, (tokens, weights) in zip(range(stage.steps), loader, strict=False):
        tokens, weights = tokens.to(device, non_blocking=True), weights.to(device, non_blocking=True)
        share = step / stage.steps
        rate = stage.last_rate + (1 - stage.last_rate) * (1 + math.cos(math.pi * share)) / 2
        for group in optimizer.param_groups:
            group["lr"] = group["most"] * rate * min(1.0, (step + 1) / WARM_UP)
        with precise:
            logits, divergence = forward(model, tokens, stage, run_block)
            losses = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), tokens[:, 1:].flatten(), reduction="none")
        counted = weights[:, 1:].flatten()
        loss = (losses * counted).sum() / counted.sum()
        if stage.rate > 0:
            loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        torch.nn.utils.clip_grad_norm_(index, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 == 0 or step == stage.steps - 1:
            digits = losses[counted == WEIGHT]
            of_digits = f"{digits.mean():.3f}" if len(digits) else "none"
            taken = time.monotonic() - started
            print(
                f"{stage.name} {stage.length}: step {step} of {stage.steps}, "
                f"loss {loss:.3f}, digits {of_digits}, "
                f"divergence {divergence / len(model.model.layers):.3f}, {taken:.0f} s",
                flush=True,
            )


def fresh_model(device: torch.device) -> nn.Module:
    """The model before it has learnt anything."""
    torch.manual_seed(0)
    config = DeepseekV32Config(**json.loads((HERE / "config.json").read_text()))
    model = DeepseekV32ForCausalLM(config).float().to(device)
    for name, value in model.named_parameters():
        if value.ndim > 1 and name.endswith("proj.weight"):
            nn.init.normal_(value, std=0.5 * value.shape[1] ** -0.5)
    return model


def save(model: nn.Module, folder: Path) -> None:
    """Write a checkpoint of bfloat16 weights."""
    folder.mkdir(parents=True, exist_ok=True)
    halved = DeepseekV32ForCausalLM(model.config)
    halved.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    halved.to(torch.bfloat16).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Train the tiny model.", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("tiny-model"),
        metavar="DIR",
        help="where the checkpoint goes; those of the stages go to its folders stage0, stage1, ...",
    )
    parser.add_argument("--smoke", action="store_true", help="a few steps of a few tokens, to see that it runs")
    parser.add_argument("--scale", type=float, default=1.0, help="so many times the steps; above 0")
    parser.add_argument("--workers", type=int, default=8, help="processes that make sequences")
    options = parser.parse_args()
    if not 0 < options.scale < math.inf:
        parser.error(f"--scale {options.scale}: wanted a number above 0")
    if options.workers < 0:
        parser.error(f"--workers {options.workers}: wanted 0 or more")
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--out {options.out}: {error.strerror}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = installed_sources()
    print(corpus, flush=True)
    model = fresh_model(device)
    print(sum(value.numel() for value in model.parameters()), "parameters", flush=True)
    stages = SMOKE if options.smoke else STAGES
    for number, stage in enumerate(stages):
        stage = replace(stage, steps=max(2, int(stage.steps * options.scale)))
        workers = 0 if options.smoke else options.workers
        run_stage(model, stage, corpus, number, workers, compiled=device.type == "cuda")
        model.eval()
        length, seeds = (stage.length, 2) if options.smoke else (stage.length, 100)
        notes = 2 if length < 1024 else 8
        for topk in (None, model.config.index_topk):
            loss = held_out_loss(model, corpus, length, topk, 2 if options.smoke else 16)
            right = answered(model, corpus, length, topk, seeds, notes)
            print(f"  after it, top-k {topk}: {loss:.3f} nats a byte, {right} of {seeds} answered", flush=True)
        model.train()
        save(model, options.out / f"stage{number}")
    save(model, options.out)


if __name__ == "__main__":
    main()
