"""Whether a model is one that can be enabled."""

from __future__ import annotations

from typing import Any

from torch import nn

from dsa_exec.integrations.transformers.attention import ATTENTIONS, DsaAttention
from dsa_exec.integrations.transformers.cache import MODEL_TYPES
from dsa_exec.integrations.transformers.configuration import wrong_in
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.indexer import INDEXERS
from dsa_exec.integrations.transformers.plain import require_own_forward, require_plain
from dsa_exec.integrations.transformers.split import require_heads_of_one_split


def attentions_of(model: nn.Module) -> list[Any]:
    """The attentions of a model that are ours or can become ours, in order."""
    return [it for it in model.modules() if type(it) in ATTENTIONS or isinstance(it, DsaAttention)]


def require_model(model: Any) -> None:
    """Check that what was given is a model of a type that we know.

    Raises:
        NotSupported: it is not.
    """
    require_module(model)
    inner = getattr(model, "module", None)
    if isinstance(inner, nn.Module) and "config" not in vars(model):
        raise NotSupported(f"{type(model).__name__} wraps a model: give the model in it, its .module")
    if not hasattr(model, "config"):
        raise NotSupported(f"{type(model).__name__} has no config: wanted a whole {' or '.join(MODEL_TYPES)} model")
    kind = getattr(model.config, "model_type", None)
    if kind not in MODEL_TYPES:
        raise NotSupported(f"model_type={kind!r}: {' and '.join(MODEL_TYPES)} are supported")


def require_module(model: Any) -> None:
    """Check that what was given is a module and no word, class or configuration.

    Raises:
        NotSupported: it is not.
    """
    if isinstance(model, nn.Module):
        return
    if isinstance(model, type):
        came = f"the class {model.__name__}"
    else:
        came = repr(model) if model is None or isinstance(model, str | int) else f"a {type(model).__name__}"
    raise NotSupported(f"{came} is no model: wanted a {' or '.join(MODEL_TYPES)} model of transformers")


def require_supported(model: Any) -> None:
    """Check that a model is one that can be enabled.

    Raises:
        NotSupported: it is not.
    """
    require_model(model)
    if getattr(model.config, "quantization_config", None) is not None:
        raise NotSupported("the model's weights are quantised: our attention needs them as they were trained")
    decoder = getattr(model, "model", model)
    for layer in getattr(decoder, "layers", ()):
        if type(layer.self_attn) not in ATTENTIONS and not isinstance(layer.self_attn, DsaAttention):
            raise NotSupported(f"the model's attention is {type(layer.self_attn).__name__}, not transformers' own")
    attentions = attentions_of(model)
    if not attentions:
        raise NotSupported(f"{type(model).__name__} has no attention of transformers' own")
    fault = wrong_in(model.config)
    if fault is not None:
        raise NotSupported(fault)
    for attention in attentions:
        require_plain(attention.kv_b_proj, "kv_b_proj")
        require_own_forward(attention)
        require_heads_of_one_split(attention)
        if attention.indexer is not None:
            if type(attention.indexer) not in (*INDEXERS, *INDEXERS.values()):
                raise NotSupported(f"the indexer is {type(attention.indexer).__name__}, not transformers' own")
            require_own_forward(attention.indexer)
