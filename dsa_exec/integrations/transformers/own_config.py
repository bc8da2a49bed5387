"""A configuration of its own for each model that is enabled.

A configuration says by which attention its models attend, and transformers lets several models share one object. So an
enabled model is given a copy, which says ours: others of the same configuration stay plain, and what its owner passed
to a constructor stays as it was.
"""

from __future__ import annotations

import copy
import weakref
from typing import Any

from torch import nn

_own: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
"""The configurations of enabled models, by their id: they can be compared but not hashed."""


def give_own_config(model: nn.Module, attentions: list[Any]) -> None:
    """Put a copy of its configuration in every module of a model that has it.

    Args:
        model: a whole model, which has a configuration.
        attentions: those of its modules that are to attend by ours, one or more.
    """
    copies: dict[int, Any] = {}
    for attention in attentions:
        if id(attention.config) not in copies:
            copies[id(attention.config)] = remember(copy.deepcopy(attention.config))
    # A head that was made around a decoder which has got its copy already still has the original.
    copies.setdefault(id(model.config), next(iter(copies.values())))
    for module in model.modules():
        ours = copies.get(id(module.__dict__.get("config")))
        if ours is not None:
            module.config = ours


def give_plain_config(model: Any, implementation: str) -> None:
    """Put a copy in every module of a plain model that was made of the configuration of an enabled one.

    Args:
        model: as its constructor has made it.
        implementation: what it is to attend by.
    """
    theirs = model.config
    if not is_own(theirs):
        return
    holders = [it for it in model.modules() if "config" in it.__dict__]
    plain = next((it.config for it in holders if it.config is not theirs), None)  # as the decoder has it already
    if plain is None:
        plain = copy.deepcopy(theirs)
        plain._attn_implementation = implementation
    for module in holders:
        module.config = plain


def remember(config: Any) -> Any:
    """The same configuration, which counts as an enabled model's from now on."""
    _own[id(config)] = config
    return config


def forget(config: Any) -> None:
    """A configuration's model is not enabled any more."""
    _own.pop(id(config), None)


def is_own(config: Any) -> bool:
    """Whether a configuration is one that an enabled model was given, or that of a copy of such a model."""
    return _own.get(id(config)) is config
