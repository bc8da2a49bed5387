"""Puts our attention into a live model, and takes it out again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from dsa_exec.integrations.transformers.attention import ATTENTION_ROTATION, ours
from dsa_exec.integrations.transformers.cache import MODEL_TYPES
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.windows import visible_windows

NAME = "dsa"


@contextlib.contextmanager
def attached(model: Any) -> Iterator[None]:
    """Run a model with our indexer, attention and caches until the block ends.

    Generate with `past_key_values=DsaCache.for_model(model, max_tokens=...)`.

    Args:
        model: a `deepseek_v32` or `glm_moe_dsa` causal language model.

    Raises:
        NotSupported: another model, or one with adapters or hooks where ours would pass them by.
    """
    require_supported(model)
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
            _copy_mode(layer.self_attn, original)
            layer.self_attn = original
        model.set_attn_implementation(implementation)


def require_supported(model: Any) -> None:
    """Check that a model is one that can be attached to.

    Raises:
        NotSupported: it is not.
    """
    kind = getattr(model.config, "model_type", None)
    if kind not in MODEL_TYPES:
        raise NotSupported(f"model_type={kind!r}: {' and '.join(MODEL_TYPES)} are supported")
    if getattr(model.config, "quantization_config", None) is not None:
        raise NotSupported("the model's weights are quantised: our attention needs them as they were trained")
    for layer in model.model.layers:
        if type(layer.self_attn) not in ATTENTION_ROTATION:
            raise NotSupported(f"the model's attention is {type(layer.self_attn).__name__}, not transformers' own")
        _require_plain(layer.self_attn.kv_b_proj, "kv_b_proj")


def _require_plain(module: Any, name: str) -> None:
    """Check that a projection is its weight and nothing else: our attention multiplies by parts of the weight.

    Raises:
        NotSupported: it has an adapter, a parametrisation, a hook or a bias, which would silently have no effect.
    """
    merge = f"our attention takes the weight of {name} alone: merge adapters and remove hooks first"
    if type(module) is not nn.Linear:
        raise NotSupported(f"{name} is a {type(module).__name__}, not a plain Linear; {merge}")
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    if "forward" in vars(module) or any(getattr(module, hook) for hook in hooks):
        raise NotSupported(f"{name} has a hook; {merge}")
    if module.bias is not None:
        raise NotSupported(f"{name} has a bias; {merge}")


def _copy_mode(ours: Any, theirs: Any) -> None:
    """Carry over what `model.train()` and `model.eval()` said to our modules; what lies below them is shared."""
    theirs.training = ours.training
    indexers = getattr(ours, "indexer", None), getattr(theirs, "indexer", None)
    if indexers[0] is not None and indexers[1] is not None:
        indexers[1].training = indexers[0].training


def _not_ours(*_: Any, **__: Any) -> NoReturn:
    raise NotSupported("a layer of the model kept an attention module of its own")
