"""Puts our attention into a live model, and takes it out again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

from transformers import AttentionInterface, AttentionMaskInterface

from dsa_exec.core.errors import UnsupportedCall
from dsa_exec.integrations.transformers.attention import ATTENTION_ROTATION, ours
from dsa_exec.integrations.transformers.windows import visible_windows

NAME = "dsa"
MODEL_TYPES = ("deepseek_v32", "glm_moe_dsa")


@contextlib.contextmanager
def attached(model: Any) -> Iterator[None]:
    """Run a model with our indexer, attention and caches until the block ends.

    Generate with `past_key_values=DsaCache.for_model(model, max_tokens=...)`.

    Args:
        model: a `deepseek_v32` or `glm_moe_dsa` causal language model.

    Raises:
        UnsupportedCall: another model.
    """
    refusal = refuses(model)
    if refusal is not None:
        raise UnsupportedCall("transformers", "attached", [("dsa", refusal)])
    AttentionInterface.register(NAME, _not_ours)
    AttentionMaskInterface.register(NAME, visible_windows)
    layers = list(model.model.layers)
    originals = [layer.self_attn for layer in layers]
    implementation = model.config._attn_implementation
    try:
        for layer, original in zip(layers, originals, strict=True):
            layer.self_attn = ours(original)
        model.set_attn_implementation(NAME)
        yield
    finally:
        for layer, original in zip(layers, originals, strict=True):
            layer.self_attn = original
        model.set_attn_implementation(implementation)


def refuses(model: Any) -> str | None:
    """Why a model cannot be attached to, in a sentence; None if it can."""
    kind = getattr(model.config, "model_type", None)
    if kind not in MODEL_TYPES:
        return f"model_type={kind!r}; {' and '.join(MODEL_TYPES)} are supported"
    foreign = next((it for it in model.model.layers if type(it.self_attn) not in ATTENTION_ROTATION), None)
    if foreign is not None:
        return f"its attention is {type(foreign.self_attn).__name__}, which is not transformers' own"
    return None


def _not_ours(*_: Any, **__: Any) -> NoReturn:
    raise UnsupportedCall("transformers", "attached", [("dsa", "a layer of the model kept its own attention module")])
