"""Puts our attention into models, and takes it out again."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import dsa_exec.integrations.transformers.registration  # noqa: F401  # gives transformers our name
from dsa_exec.integrations.transformers.attention import ATTENTIONS, NAME, THEIRS, DsaAttention
from dsa_exec.integrations.transformers.indexer import INDEXERS
from dsa_exec.integrations.transformers.model_types import disable_type, enable_type, is_type_enabled
from dsa_exec.integrations.transformers.own_config import forget, give_own_config, is_own
from dsa_exec.integrations.transformers.supported import (
    attentions_of,
    require_model,
    require_module,
    require_supported,
)

_ORIGINALS: dict[type[Any], type[Any]] = {ours: theirs for theirs, ours in (*ATTENTIONS.items(), *INDEXERS.items())}

_lock = threading.RLock()
_holders: weakref.WeakKeyDictionary[Any, set[object]] = weakref.WeakKeyDictionary()
"""The blocks of `attached` for which an attention is ours. The last of them to end takes it out again."""


def enable(target: Any) -> None:
    """Run a model on our indexer, attention and caches from now on; or all models of a type that are loaded later.

    Everything else stays as it is: `model.generate(ids, max_new_tokens=64)` makes a cache that grows, and
    `cache_implementation="static"` one of fixed size; `DsaCache.for_model` makes either beforehand. Enabling what is
    enabled does nothing. An enabled model has a copy of its configuration, which it keeps: other models of the same
    configuration stay as they are.

    Args:
        target: a whole `deepseek_v32` or `glm_moe_dsa` model, or one of these words.

    Raises:
        NotSupported: another model or no model, one whose configuration our attention cannot run, or one with adapters
            or hooks where ours would pass them by.
    """
    if isinstance(target, str):
        enable_type(target)
        return
    require_supported(target)
    with _lock:
        _put_in(target)
        for attention in attentions_of(target):
            _holders.pop(attention, None)


def disable(target: Any) -> None:
    """Undo `enable`: the model, or models of a type that are loaded later, run as transformers made them.

    No pass may be under way in another thread.

    Args:
        target: as in `enable`. What is not enabled stays as it is; models that were loaded while their type was enabled
            stay enabled until they are given here.

    Raises:
        NotSupported: another model or model type, or no model.
    """
    if isinstance(target, str):
        disable_type(target)
        return
    require_module(target)
    with _lock:
        ours = [it for it in attentions_of(target) if isinstance(it, DsaAttention)]
        if not ours:
            require_model(target)
        for attention in ours:
            _holders.pop(attention, None)
            _take_out(attention)


def is_enabled(target: Any) -> bool:
    """Whether a model, or a model type, was enabled.

    Raises:
        NotSupported: another model type, or no model.
    """
    if isinstance(target, str):
        return is_type_enabled(target)
    require_module(target)
    return any(isinstance(it, DsaAttention) for it in attentions_of(target))


@contextlib.contextmanager
def attached(model: Any) -> Iterator[None]:
    """`enable` until the block ends; a model that was enabled before stays so.

    Blocks may be in each other and in several threads, for each of which the model is enabled meanwhile: the last one
    to end disables it. `enable` or `disable` within a block has the last word.

    Args:
        model: a `deepseek_v32` or `glm_moe_dsa` model.

    Raises:
        NotSupported: as in `enable`; a model type.
    """
    require_module(model)
    block = object()
    with _lock:
        attentions = attentions_of(model)
        held = [it for it in attentions if it in _holders or not isinstance(it, DsaAttention)]
        if not attentions or any(not isinstance(it, DsaAttention) for it in held):
            require_supported(model)
            _put_in(model)
        for attention in held:
            _holders.setdefault(attention, set()).add(block)
    try:
        yield
    finally:
        with _lock:
            for attention in held:
                _let_go(attention, block)


def _put_in(model: Any) -> None:
    attentions = attentions_of(model)
    if not all(isinstance(it, DsaAttention) and is_own(it.config) and it.config is model.config for it in attentions):
        give_own_config(model, attentions)
    for attention in attentions:
        if isinstance(attention, DsaAttention):
            continue
        before = attention.config._attn_implementation
        attention.replaced_implementation = THEIRS if before == NAME else before
        attention.__class__ = ATTENTIONS[type(attention)]
        if attention.indexer is not None:
            attention.indexer.__class__ = INDEXERS[type(attention.indexer)]
    for attention in attentions:
        attention.config._attn_implementation = NAME


def _take_out(attention: Any) -> None:
    if attention.config._attn_implementation == NAME:
        attention.config._attn_implementation = attention.replaced_implementation
    forget(attention.config)
    attention.__dict__.pop("replaced_implementation", None)
    attention.__class__ = _ORIGINALS[type(attention)]
    if attention.indexer is not None:
        attention.indexer.__class__ = _ORIGINALS[type(attention.indexer)]


def _let_go(attention: Any, block: object) -> None:
    blocks = _holders.get(attention)
    if blocks is None or block not in blocks:
        return  # an `enable` or `disable` came in between
    blocks.remove(block)
    if not blocks:
        del _holders[attention]
        _take_out(attention)
