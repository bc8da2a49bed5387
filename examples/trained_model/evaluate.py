"""Measures the tiny model, and prints the tables of its card (docs/tiny-model.md).

    python evaluate.py                   # everything: minutes on a GPU
    python evaluate.py --quick           # a small part, anywhere

Losses and answers with attention to what was selected come from the ops of `dsa_exec` under transformers; dense ones,
and where the attention of each layer goes, from the forward pass that the model was trained by.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from corpus import Corpus, installed_sources, passage
from indexer_loss import ROWS, attention_shares
from judge import answered, held_out_loss
from network import Layer, attended, mlp, project, rotations
from retrieval import VALUE, prompt
from torch import Tensor, nn

from dsa_config import settings
from dsa_exec import GatheredKeys, IndexKCache, index_gather, index_quant, index_select, index_store
from dsa_exec.core.errors import DsaError
from dsa_exec.integrations.transformers import DsaCache, attached, be_quiet, load_checkpoint, load_tiny

TOPK = (32, 64, 128, 256, 512)
LENGTHS = (512, 1024, 2048, 4096, 8192)
NOTES = 8


@dataclass(frozen=True)
class Format:
    """What the caches hold.

    Attributes:
        name: in the tables.
        fp8: e4m3 with scales; otherwise the model's dtype.
        hadamard: index keys and queries are rotated before they are quantised.
    """

    name: str
    fp8: bool
    hadamard: bool = False


MODEL = Format("model's dtype", fp8=False)
FORMATS = (MODEL, Format("fp8", fp8=True), Format("fp8, Hadamard", fp8=True, hadamard=True))


@contextlib.contextmanager
def selecting(model: nn.Module, topk: int, it: Format) -> Iterator[None]:
    """Run the model on our ops, with another top-k, over caches of a format."""
    trained = model.config.index_topk
    indexers = [layer.self_attn.indexer for layer in model.model.layers]
    kind = "fp8" if it.fp8 else "model"
    try:
        for held in (model.config, *indexers):
            held.index_topk = topk
        with settings.override(index_k_format=kind, kv_format=kind), attached(model), torch.no_grad():
            yield
    finally:
        for held in (model.config, *indexers):
            held.index_topk = trained


def logits_by_ops(model: nn.Module, text: bytes, it: Format) -> Tensor:
    """Logits [s, vocabulary] of a text in one pass."""
    cache = DsaCache.for_model(model, max_tokens=len(text), hadamard=it.hadamard)
    tokens = torch.tensor([list(text)], device=model.device)
    return model(tokens, past_key_values=cache, use_cache=True).logits[0].float()


def loss_by_ops(model: nn.Module, corpus: Corpus, length: int, topk: int, it: Format, count: int) -> float:
    """As `held_out_loss`, on the same passages."""
    numbers, losses = random.Random(1), []
    with selecting(model, topk, it):
        for _ in range(count):
            text = passage(corpus.held_out, length, numbers)
            wanted = torch.tensor(list(text[length // 2 + 1 :]), device=model.device)
            losses.append(F.cross_entropy(logits_by_ops(model, text, it)[length // 2 : -1], wanted))
    return float(torch.stack(losses).mean())


def answered_by_ops(model: nn.Module, corpus: Corpus, length: int, topk: int, it: Format, seeds: int) -> int:
    """As `answered`, of the same prompts."""
    right = 0
    with selecting(model, topk, it):
        for seed in range(seeds):
            numbers = random.Random(1000 + seed)
            text, answer = prompt(passage(corpus.held_out, length, numbers), length, NOTES, numbers)
            guessed = logits_by_ops(model, text + answer, it)[-VALUE - 1 : -1].argmax(-1)
            right += guessed.tolist() == list(answer)
    return right


def kept_by_ops(it: Layer, topk: int, format: Format) -> Tensor:
    """Bool [s, s]: what each row of one sequence selects, by the ops."""
    q, k, weights = it.index_q[0], it.index_k[0], it.index_weights[0]
    s, heads, width = q.shape
    where = {"device": q.device, "model_dtype": q.dtype}
    with settings.override(index_k_format="fp8" if format.fp8 else "model"):
        cache = IndexKCache.allocate(s, hadamard=format.hadamard, **where)
    index_store(cache, k, torch.arange(s, device=q.device))
    quantised, folded = index_quant(q.contiguous(), weights / (heads * width) ** -0.5, cache.layout)
    pages = torch.arange(cache.data.shape[0], dtype=torch.int32, device=q.device)[None]
    lens = torch.tensor([s], dtype=torch.int32, device=q.device)
    keys, scales = index_gather(cache, pages, lens, s)
    ends = torch.arange(1, s + 1, dtype=torch.int32, device=q.device)
    picked = index_select(quantised, folded, GatheredKeys(keys, scales, torch.zeros_like(ends), ends), topk).indices
    kept = torch.zeros(s, s + 1, dtype=torch.bool, device=q.device)
    return kept.scatter_(1, picked.long().where(picked >= 0, s), True)[:, :s]


@torch.no_grad()
def recalls(model: nn.Module, corpus: Corpus, length: int, wanted: list[tuple[int, Format]], count: int) -> list[float]:
    """The share of dense attention that falls on what is selected, over the second half's rows and all layers."""
    config, numbers = model.config, random.Random(1)
    device = next(model.parameters()).device
    cos, sin = rotations(length, config.qk_rope_head_dim, config.rope_parameters["rope_theta"], device)
    sums = torch.zeros(len(wanted), dtype=torch.float64)
    rows = 0
    for _ in range(count):
        tokens = torch.tensor([list(passage(corpus.held_out, length, numbers))], device=device)
        hidden = model.model.embed_tokens(tokens)
        for layer in model.model.layers:
            it = project(layer.self_attn, layer.input_layernorm(hidden), cos.to(hidden.dtype), sin.to(hidden.dtype))
            kept = [kept_by_ops(it, topk, format) for topk, format in wanted]
            for first in range(length // 2, length, ROWS):
                step = min(ROWS, length - first)
                shares = attention_shares(it, layer.self_attn.scaling, first, step, None)[0]
                for place, keep in enumerate(kept):
                    part = keep[first : first + step, : first + step]
                    sums[place] += float((shares * part).sum())
                rows += step
            hidden = mlp(layer, hidden + attended(layer.self_attn, it, None))
    return (sums / rows).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the tiny model.")
    parser.add_argument("--model", type=Path, metavar="DIR", help="a checkpoint of train.py; without it, ours")
    parser.add_argument("--quick", action="store_true", help="one passage and one prompt, of 256 bytes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args()
    if options.json is not None and not options.json.parent.is_dir():
        parser.error(f"--json {options.json}: there is no folder {options.json.parent}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    be_quiet()
    try:
        loaded = load_tiny(device) if options.model is None else load_checkpoint(options.model, device)
    except DsaError as error:
        parser.error(f"--model {options.model}: {error}")
    model, corpus = loaded.model, installed_sources()
    length, lengths, count, seeds = (256, (256,), 1, 1) if options.quick else (4096, LENGTHS, 32, 100)
    trained = model.config.index_topk
    ways = [(topk, MODEL) for topk in TOPK if topk < length] + [(trained, it) for it in FORMATS[1:]]
    record: dict[str, object] = {"text": str(corpus), "device": str(device), "torch": torch.__version__}
    with torch.no_grad():
        dense = held_out_loss(model, corpus, length, None, count)
        rows = [{"attention": "dense", "loss": dense, "recall": 1.0}]
        for (topk, it), recall in zip(ways, recalls(model, corpus, length, ways, max(1, count // 4)), strict=True):
            loss = loss_by_ops(model, corpus, length, topk, it, count)
            rows.append({"attention": f"top {topk}, {it.name}", "loss": loss, "recall": recall})
        record["attention"] = rows
        record["answered"] = [
            {
                "bytes": size,
                "dense": answered(model, corpus, size, None, seeds, NOTES),
                **{it.name: answered_by_ops(model, corpus, size, trained, it, seeds) for it in FORMATS},
            }
            for size in lengths
        ]
    print(record["text"])
    print(f"\n| attention, {length} bytes | nats a byte | share of dense attention that is selected |\n|---|---:|---:|")
    for row in rows:
        print(f"| {row['attention']} | {row['loss']:.4f} | {row['recall']:.4f} |")
    print(f"\n| bytes | dense | {' | '.join(f'top {trained}, {it.name}' for it in FORMATS)} |\n|---|" + "---:|" * 4)
    for row in record["answered"]:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    if options.json is not None:
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
