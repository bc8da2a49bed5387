"""Models whose logits are no numbers, by which nothing can be judged."""

from __future__ import annotations

from typing import Any

from dsa_exec.cli.bench.passes import Results, Text


def is_finite(results: Results) -> bool:
    """Whether no logit is NaN or infinite."""
    return bool(results.logits.isfinite().all())


def why_not_finite(model: Any, text: Text, results: Results) -> str:
    """A sentence: which parameter is no number either, or after how many tokens logits overflow.

    Args:
        model: that read a text.
        text: the text.
        results: on plain transformers, with logits that are NaN or infinite.
    """
    damaged = next((name for name, it in model.named_parameters() if not bool(it.isfinite().all())), None)
    if damaged is not None:
        return f"the model's logits are NaN or infinite, as is its parameter {damaged}"
    step = int((~results.logits.isfinite()).any(2).any(0).nonzero()[0])
    tokens = text.prompt.shape[1] + step
    return f"the model's logits are NaN or infinite after {tokens} tokens: they overflow in {model.dtype}"
