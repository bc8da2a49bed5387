"""Continues 20 prompts with the tiny model, plainly and on our ops, and compares the texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dsa_exec
from benchmarks.transformers.contexts import Way
from benchmarks.transformers.record import AgreementRow
from dsa_config import settings
from dsa_exec.integrations.transformers import attached
from dsa_exec.integrations.transformers.greedy import Continuation, agreement, continue_greedily

PROMPTS = 20
ON_A_GPU, ELSEWHERE = (1024, 4096, 32), (160, 320, 16)
"""The shortest prompt and the longest, in bytes, and new tokens of each."""


def prompts(shortest: int, longest: int) -> list[list[int]]:
    """The beginnings of this project's own files, of several lengths."""
    root = Path(dsa_exec.__file__).parent
    files = [path for path in sorted(root.rglob("*.py")) if path.stat().st_size >= longest]
    step = max(1, len(files) // PROMPTS)
    lengths = [shortest + (longest - shortest) * number // (PROMPTS - 1) for number in range(PROMPTS)]
    texts = [files[number * step % len(files)].read_bytes() for number in range(PROMPTS)]
    return [list(text[:length]) for text, length in zip(texts, lengths, strict=True)]


def compare(model: Any, ways: Sequence[Way], given: list[list[int]], new_tokens: int) -> Iterator[AgreementRow]:
    """Compare each way with plain transformers."""
    plain = [continue_greedily(model, prompt, new_tokens) for prompt in given]
    for way in ways:
        assert way.formats is not None
        with settings.override(**way.formats), attached(model):
            ours = [continue_greedily(model, prompt, new_tokens) for prompt in given]
        yield _row(way, plain, ours, new_tokens)


def _row(way: Way, plain: list[Continuation], ours: list[Continuation], new_tokens: int) -> AgreementRow:
    found = [agreement(left, right) for left, right in zip(plain, ours, strict=True)]
    pairs = [
        pair for left, right in zip(plain, ours, strict=True) for pair in zip(left.tokens, right.tokens, strict=False)
    ]
    shares = [it.selected_in_common for it in found if it.selected_in_common is not None]
    return AgreementRow(
        way=way.name,
        prompts=len(found),
        new_tokens=new_tokens,
        same=sum(left == right for left, right in pairs) / len(pairs),
        first_divergences=[it.first_divergence for it in found],
        selected_in_common=sum(shares) / len(shares) if shares else None,
        largest_logit_difference=max(it.largest_logit_difference for it in found),
    )
