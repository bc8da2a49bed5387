"""Modules that are what they are called and nothing else, of which our attention uses parts and not the whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dsa_exec.integrations.transformers.errors import NotSupported

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def require_plain(module: Any, name: str) -> None:
    """Check that a projection is its weight and nothing else: our attention multiplies by parts of the weight.

    Raises:
        NotSupported: it is quantised, or has an adapter, a parametrisation, a hook or a bias, which would silently have
            no effect.
    """
    if torch.compiler.is_compiling():
        return  # was checked in the pass that allocated the cache
    merge = f"our attention takes the weight of {name} alone: merge adapters and remove hooks first"
    if type(module) is not nn.Linear:
        raise NotSupported(f"{name} is a {type(module).__name__}, not a plain Linear; {merge}")
    if "forward" in module.__dict__ or any(module.__dict__[hook] for hook in HOOKS):
        raise NotSupported(f"{name} has a hook; {merge}")
    if module.bias is not None:
        raise NotSupported(f"{name} has a bias; {merge}")


def require_own_forward(module: Any) -> None:
    """Check that a module's forward pass is its class's, so that it can become that of another class.

    Raises:
        NotSupported: it was replaced, as offloading does.
    """
    if "forward" in module.__dict__:
        raise NotSupported(
            f"the forward pass of {type(module).__name__} was replaced: remove hooks and offloading first"
        )
