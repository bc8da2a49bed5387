"""Enabling of model types: what is made from then on has our attention from the start."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from transformers import PreTrainedModel

from dsa_exec.integrations.transformers.attention import ATTENTIONS, NAME, THEIRS, DsaAttention
from dsa_exec.integrations.transformers.cache import MODEL_TYPES
from dsa_exec.integrations.transformers.configuration import wrong_in
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.own_config import give_own_config, give_plain_config


def enable_type(kind: str) -> None:
    """Have models of a type made with our attention.

    Raises:
        NotSupported: another type, or one whose attention was replaced by somebody else.
    """
    # transformers has an interface for this (`register_patch_mapping`), which before 5.18 imports what only other
    # models need, and does not reach models that are made by their constructor.
    modeling, theirs = _attention_of(kind)
    found = getattr(modeling, theirs.__name__)
    if found not in (theirs, ATTENTIONS[theirs]):
        raise NotSupported(f"{modeling.__name__}.{theirs.__name__} was replaced by {found.__name__}: undo that first")
    setattr(modeling, theirs.__name__, ATTENTIONS[theirs])


def disable_type(kind: str) -> None:
    """Undo `enable_type`, for what is made from then on.

    Raises:
        NotSupported: another type.
    """
    modeling, theirs = _attention_of(kind)
    if is_type_enabled(kind):
        setattr(modeling, theirs.__name__, theirs)


def is_type_enabled(kind: str) -> bool:
    """Whether models of a type are made with our attention.

    Raises:
        NotSupported: another type.
    """
    modeling, theirs = _attention_of(kind)
    return getattr(modeling, theirs.__name__) is ATTENTIONS[theirs]


def _attention_of(kind: str) -> tuple[ModuleType, type[Any]]:
    """The module of a model type in transformers, and the attention that it defines."""
    for theirs in ATTENTIONS:
        if kind in MODEL_TYPES and theirs.__module__.endswith(f".modeling_{kind}"):
            return importlib.import_module(theirs.__module__), theirs
    raise NotSupported(f"model_type={kind!r}: {' and '.join(MODEL_TYPES)} are supported")


def _finish(model: Any) -> None:
    """The `post_init` that transformers calls at the end of each constructor: the decoder's, then that with a head.

    Raises:
        NotSupported: the type is enabled, and the configuration is one that our attention cannot run.
    """
    PreTrainedModel.post_init(model)
    attentions = [it for it in model.modules() if isinstance(it, DsaAttention)]
    if not attentions:
        give_plain_config(model, THEIRS)
        return
    fault = wrong_in(attentions[0].config)
    if fault is not None:
        raise NotSupported(fault)
    give_own_config(model, attentions)
    for attention in attentions:
        if attention.config._attn_implementation == THEIRS:
            attention.config._attn_implementation = NAME


for _theirs in ATTENTIONS:
    # All models of a module inherit from this class, which has no `post_init` of its own.
    _base = _theirs.__name__.removesuffix("Attention") + "PreTrainedModel"
    getattr(sys.modules[_theirs.__module__], _base).post_init = _finish
