"""Our name among the attentions of transformers: registered on import, so that a model from a pickle finds it."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from dsa_exec.integrations.transformers.attention import NAME, THEIRS
from dsa_exec.integrations.transformers.errors import NotSupported
from dsa_exec.integrations.transformers.own_config import is_own
from dsa_exec.integrations.transformers.windows import visible_windows


def windows_of_enabled(*args: Any, config: Any = None, **kwargs: Any) -> torch.Tensor:
    """`visible_windows`, for models that are enabled.

    Args:
        args: of `visible_windows`.
        config: of the model that asks.
        kwargs: of `visible_windows`.

    Raises:
        NotSupported: the model only has a configuration that says ours, which plain attention would take our windows
            for a mask of. In a graph that is traced this is not looked at. Else as in `visible_windows`.
    """
    if not torch.compiler.is_compiling() and not is_own(config):
        raise NotSupported(
            f"config._attn_implementation is {NAME!r}, and the model is not enabled: enable(model), or "
            f"model.set_attn_implementation({THEIRS!r})"
        )
    return visible_windows(*args, **kwargs)


def _not_ours(*_: Any, **__: Any) -> NoReturn:
    raise NotSupported("a layer of the model kept an attention module of its own")


AttentionInterface.register(NAME, _not_ours)
AttentionMaskInterface.register(NAME, windows_of_enabled)
