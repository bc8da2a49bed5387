"""What a cache has to know of the model that it was made for, so that it is not given to another."""

from __future__ import annotations

from typing import Any

from dsa_exec.integrations.transformers.errors import NotSupported

COMPARED = (
    "model_type",
    "num_hidden_layers",
    "kv_lora_rank",
    "qk_rope_head_dim",
    "index_head_dim",
    "index_topk",
    "indexer_types",
)
"""By their names in a configuration. DeepSeek's has no `indexer_types`: each layer selects."""

ModelShape = tuple[Any, ...]
"""A value for each of these names."""


def shape_of(config: Any) -> ModelShape:
    """The shape of a model, as its configuration says now."""
    types = getattr(config, "indexer_types", None)
    return (*(getattr(config, name) for name in COMPARED[:-1]), None if types is None else tuple(types))


def require_shape(made_for: ModelShape | None, config: Any) -> None:
    """Check that a cache was made for a model of this configuration.

    Args:
        made_for: the shape of the model that it was made for; None if nobody said.
        config: of the model that is running.

    Raises:
        NotSupported: it was made for another.
    """
    if made_for is None:
        return
    for name, there, here in zip(COMPARED, made_for, shape_of(config), strict=True):
        if there != here:
            raise NotSupported(
                f"past_key_values was made for a model with {name}={there!r}, and this one has {here!r}: pass "
                "DsaCache.for_model(model), or an empty cache of transformers"
            )
