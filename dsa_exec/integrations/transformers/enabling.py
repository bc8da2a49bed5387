"""Puts our attention into models, and takes it out again."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from dsa_exec.integrations.transformers.attention import ATTENTIONS, NAME, THEIRS, DsaAttention
from dsa_exec.integrations.transformers.cache import MODEL_TYPES
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.indexer import INDEXERS
from dsa_exec.integrations.transformers.plain import require_own_forward, require_plain
from dsa_exec.integrations.transformers.windows import visible_windows

_ORIGINALS: dict[type[Any], type[Any]] = {ours: theirs for theirs, ours in (*ATTENTIONS.items(), *INDEXERS.items())}


def enable(target: Any) -> None:
    """Run a model on our indexer, attention and caches from now on; or all models of a type that are loaded later.

    Everything else stays as it is: `model.generate(ids, max_new_tokens=64)` makes a cache that grows, and
    `cache_implementation="static"` one of fixed size; `DsaCache.for_model` makes either beforehand. Enabling what is
    enabled does nothing.

    Args:
        target: a `deepseek_v32` or `glm_moe_dsa` model, or one of these words.

    Raises:
        NotSupported: another model, or one with adapters or hooks where ours would pass them by.
    """
    AttentionInterface.register(NAME, _not_ours)
    AttentionMaskInterface.register(NAME, visible_windows)
    if isinstance(target, str):
        _enable_type(target)
        return
    require_supported(target)
    for attention in _attentions(target):
        if isinstance(attention, DsaAttention):
            continue
        before = attention.config._attn_implementation
        attention.replaced_implementation = THEIRS if before == NAME else before
        attention.__class__ = ATTENTIONS[type(attention)]
        if attention.indexer is not None:
            attention.indexer.__class__ = INDEXERS[type(attention.indexer)]
    for attention in _attentions(target):
        attention.config._attn_implementation = NAME


def disable(target: Any) -> None:
    """Undo `enable`: the model, or models of a type that are loaded later, run as transformers made them.

    Args:
        target: as in `enable`. What is not enabled stays as it is; models that were loaded while their type was enabled
            stay enabled until they are given here.

    Raises:
        NotSupported: another model type.
    """
    if isinstance(target, str):
        _disable_type(target)
        return
    for attention in _attentions(target):
        if not isinstance(attention, DsaAttention):
            continue
        if attention.config._attn_implementation == NAME:
            attention.config._attn_implementation = attention.replaced_implementation
        attention.__dict__.pop("replaced_implementation", None)
        attention.__class__ = _ORIGINALS[type(attention)]
        if attention.indexer is not None:
            attention.indexer.__class__ = _ORIGINALS[type(attention.indexer)]


def is_enabled(target: Any) -> bool:
    """Whether a model, or a model type, was enabled."""
    if isinstance(target, str):
        modeling, theirs = _attention_of(target)
        return getattr(modeling, theirs.__name__) is ATTENTIONS[theirs]
    return any(isinstance(it, DsaAttention) for it in _attentions(target))


@contextlib.contextmanager
def attached(model: Any) -> Iterator[None]:
    """`enable` until the block ends; a model that was enabled before stays so.

    Args:
        model: a `deepseek_v32` or `glm_moe_dsa` model.

    Raises:
        NotSupported: as in `enable`.
    """
    if is_enabled(model):
        yield
        return
    enable(model)
    try:
        yield
    finally:
        disable(model)


def require_supported(model: Any) -> None:
    """Check that a model is one that can be enabled.

    Raises:
        NotSupported: it is not.
    """
    kind = getattr(model.config, "model_type", None)
    if kind not in MODEL_TYPES:
        raise NotSupported(f"model_type={kind!r}: {' and '.join(MODEL_TYPES)} are supported")
    if getattr(model.config, "quantization_config", None) is not None:
        raise NotSupported("the model's weights are quantised: our attention needs them as they were trained")
    decoder = getattr(model, "model", model)
    for layer in getattr(decoder, "layers", ()):
        if type(layer.self_attn) not in ATTENTIONS and not isinstance(layer.self_attn, DsaAttention):
            raise NotSupported(f"the model's attention is {type(layer.self_attn).__name__}, not transformers' own")
    if not _attentions(model):
        raise NotSupported(f"{type(model).__name__} has no attention of transformers' own")
    for attention in _attentions(model):
        require_plain(attention.kv_b_proj, "kv_b_proj")
        require_own_forward(attention)
        if attention.indexer is not None:
            if type(attention.indexer) not in (*INDEXERS, *INDEXERS.values()):
                raise NotSupported(f"the indexer is {type(attention.indexer).__name__}, not transformers' own")
            require_own_forward(attention.indexer)


def _attentions(model: nn.Module) -> list[Any]:
    return [it for it in model.modules() if type(it) in ATTENTIONS or isinstance(it, DsaAttention)]


def _attention_of(kind: str) -> tuple[ModuleType, type[Any]]:
    """The module of a model type in transformers, and the attention that it defines."""
    for theirs in ATTENTIONS:
        if kind in MODEL_TYPES and theirs.__module__.endswith(f".modeling_{kind}"):
            return importlib.import_module(theirs.__module__), theirs
    raise NotSupported(f"model_type={kind!r}: {' and '.join(MODEL_TYPES)} are supported")


def _enable_type(kind: str) -> None:
    # transformers has an interface for this (`register_patch_mapping`), which before 5.18 imports what only other
    # models need, and does not reach models that are made by their constructor.
    modeling, theirs = _attention_of(kind)
    found = getattr(modeling, theirs.__name__)
    if found not in (theirs, ATTENTIONS[theirs]):
        raise NotSupported(f"{modeling.__name__}.{theirs.__name__} was replaced by {found.__name__}: undo that first")
    setattr(modeling, theirs.__name__, ATTENTIONS[theirs])


def _disable_type(kind: str) -> None:
    modeling, theirs = _attention_of(kind)
    if is_enabled(kind):
        setattr(modeling, theirs.__name__, theirs)


def _not_ours(*_: Any, **__: Any) -> NoReturn:
    raise NotSupported("a layer of the model kept an attention module of its own")
