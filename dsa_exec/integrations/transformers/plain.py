"""Modules that are what they are called and nothing else, of which our attention uses parts and not the whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dsa_exec.core.checks import FLOAT_DTYPES
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.split import is_split_by_transformers

WEIGHT_DTYPES = (*FLOAT_DTYPES, torch.float64)
"""What is multiplied by as it is. (A model in float64 is refused by its caches, in other words.)"""


def require_plain(module: Any, name: str) -> None:
    """Check that a projection is its weight and nothing else: our attention multiplies by parts of the weight.

    Raises:
        NotSupported: it is quantised, or has an adapter, a parametrisation, a hook or a bias, which would silently have
            no effect.
    """
    merge = f"our attention takes the weight of {name} alone: merge adapters and remove hooks first"
    if type(module) is not nn.Linear:
        kind = type(module).__name__
        if kind == "Linear":  # as quantised ones are called too
            kind = f"{type(module).__module__}.Linear"
        raise NotSupported(f"{name} is a {kind}, not a plain Linear; {merge}")
    if module.weight.dtype not in WEIGHT_DTYPES:
        came = f"the weight of {name} is {module.weight.dtype}"
        raise NotSupported(f"{came}: our attention needs weights as they were trained, such as bf16")
    if (_has_another_forward(module) and not is_split_by_transformers(module)) or _has_hooks(module):
        raise NotSupported(f"{name} has a hook; {merge}")
    if module.bias is not None:
        raise NotSupported(f"{name} has a bias; {merge}")


# Both are read in ways for which torch makes guards, so that a step that was compiled before sees a change. It sees
# hooks as those of any module: if torch is told to (torch._dynamo.config.skip_nnmodule_hook_guards=False).


def _has_another_forward(module: nn.Module) -> bool:
    _ = module.forward  # guarded; that a key is absent from a dictionary of attributes is not
    return "forward" in module.__dict__


def _has_hooks(module: nn.Module) -> bool:
    before = len(module._forward_pre_hooks) + len(module._backward_pre_hooks)
    return before + len(module._forward_hooks) + len(module._backward_hooks) > 0


def require_own_forward(module: Any) -> None:
    """Check that a module's forward pass is its class's, so that it can become that of another class.

    Raises:
        NotSupported: it was replaced, as offloading does.
    """
    if "forward" in module.__dict__:
        raise NotSupported(
            f"the forward pass of {type(module).__name__} was replaced: remove hooks and offloading first"
        )
