"""What a model's configuration says about the caches that it needs: layers, widths, indexers, compression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dsa_exec.memory.geometry_indexers import own_indexers
from dsa_exec.memory.geometry_keys import MOST_LAYERS, ConfigKeys
from dsa_exec.memory.geometry_ratios import compress_ratios
from dsa_exec.memory.geometry_widths import WIDEST, mla_widths, v4_widths, v4_window

ModelType = Literal["deepseek_v32", "glm_moe_dsa", "deepseek_v4"]

MODEL_TYPES: tuple[ModelType, ...] = ("deepseek_v32", "glm_moe_dsa", "deepseek_v4")
"""The values of `model_type` that a plan can be made of."""

INDEXED_RATIO = 4
"""V4: the layers of this ratio have an indexer; those of 128 attend to all their compressed tokens."""

INDEX_HEAD_DIM = 128
"""Channels of an index key that shares one scale: index_quant and every kernel are made for it."""

_DEFAULTS: dict[ModelType, tuple[int, int, int]] = {
    "deepseek_v32": (64, 2048, 163_840),
    "glm_moe_dsa": (32, 2048, 202_752),
    "deepseek_v4": (64, 512, 1_048_576),
}
"""What transformers gives index_n_heads, index_topk and max_position_embeddings."""


@dataclass(frozen=True, slots=True)
class ModelGeometry:
    """The sizes of a model that decide what its caches take. Channels are counts of numbers, not bytes.

    Two are equal if their sizes are, wherever they were read.

    Attributes:
        model_type: which model it is.
        origin: the file it was read from, for errors.
        layers: layers of the model, without draft layers (next-token prediction).
        draft_layers: draft layers that the checkpoint has; 1 if the configuration does not say it, as published
            checkpoints have. Whether they are loaded is a choice of the plan.
        latent_dim: channels of a cached token without RoPE: kv_lora_rank, or head_dim - qk_rope_head_dim in V4.
        rope_dim: channels of a cached token with RoPE.
        index_heads: heads of the indexer.
        index_head_dim: channels of an index key.
        index_topk: positions that a query selects.
        max_context_tokens: the longest context that the model was made for.
        own_indexers: for each layer, whether it has an indexer, and so an index-K cache, of its own.
        draft_own_indexers: the same for each draft layer that the configuration tells. Others have one, except in V4.
        compress_ratios: V4: for each layer 0 (only a window), 4 or 128. Empty in other models.
        draft_compress_ratios: the same for each draft layer that the configuration tells. Others only have a window.
        window_tokens: V4: tokens of the sliding window, which every layer has. 0 in other models.
        draft_layers_told: whether the configuration says how many draft layers there are.
        notes: what was assumed, in sentences.
    """

    model_type: ModelType
    origin: str = field(compare=False)
    layers: int
    draft_layers: int
    latent_dim: int
    rope_dim: int
    index_heads: int
    index_head_dim: int
    index_topk: int
    max_context_tokens: int
    own_indexers: tuple[bool, ...]
    draft_own_indexers: tuple[bool, ...] = ()
    compress_ratios: tuple[int, ...] = ()
    draft_compress_ratios: tuple[int, ...] = ()
    window_tokens: int = 0
    draft_layers_told: bool = field(default=True, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def compressed(self) -> bool:
        """Whether this is V4, whose caches are compressed, and not a model with one MLA cache a layer."""
        return self.model_type == "deepseek_v4"

    @property
    def kv_width(self) -> int:
        """Channels of a cached token."""
        return self.latent_dim + self.rope_dim

    def ratio_of(self, layer: int) -> int:
        """V4: how much a layer compresses. Draft layers are numbered after the last layer."""
        if layer < self.layers:
            return self.compress_ratios[layer]
        draft = layer - self.layers
        return self.draft_compress_ratios[draft] if draft < len(self.draft_compress_ratios) else 0

    def has_own_indexer(self, layer: int) -> bool:
        """Whether a layer has an index-K cache of its own. Draft layers are numbered after the last layer."""
        if self.compressed:
            return self.ratio_of(layer) == INDEXED_RATIO
        if layer < self.layers:
            return self.own_indexers[layer]
        draft = layer - self.layers
        return self.draft_own_indexers[draft] if draft < len(self.draft_own_indexers) else True


def geometry_of(config: Mapping[str, Any], origin: str) -> ModelGeometry:
    """The geometry that a Hugging Face `config.json` describes.

    A key that is absent has the value that transformers gives it, and a note says so; `model_type`,
    `num_hidden_layers` and V4's ratios must be there.

    Args:
        config: the file's JSON object.
        origin: the file, for errors and notes.

    Raises:
        GeometryError: a key is absent that must be there, or its value is not one that a plan can be made of.
    """
    keys = ConfigKeys(config, origin)
    model_type = keys.choice("model_type", MODEL_TYPES)
    layers = keys.number("num_hidden_layers", low=1, high=MOST_LAYERS)
    told = keys.get("num_nextn_predict_layers") is not None
    draft_layers = keys.number("num_nextn_predict_layers", low=0, high=MOST_LAYERS) if told else 1
    v4 = model_type == "deepseek_v4"
    ratios: tuple[int, ...] = ()
    draft_ratios: tuple[int, ...] = ()
    draft_own: tuple[bool, ...] = ()
    if v4:
        latent_dim, rope_dim = v4_widths(keys)
        ratios, draft_ratios = compress_ratios(keys, layers, draft_layers)
        own = tuple(ratio == INDEXED_RATIO for ratio in ratios)
    else:
        latent_dim, rope_dim = mla_widths(keys)
        own, draft_own = own_indexers(keys, layers, draft_layers)
    heads, topk, context_tokens = _DEFAULTS[model_type]
    return ModelGeometry(
        model_type=model_type,
        origin=origin,
        layers=layers,
        draft_layers=draft_layers,
        latent_dim=latent_dim,
        rope_dim=rope_dim,
        index_heads=keys.number("index_n_heads", low=1, high=WIDEST, default=heads),
        index_head_dim=keys.number("index_head_dim", low=INDEX_HEAD_DIM, high=INDEX_HEAD_DIM, default=INDEX_HEAD_DIM),
        index_topk=keys.number("index_topk", low=1, high=2**31 - 1, default=topk),
        max_context_tokens=keys.number("max_position_embeddings", low=1, high=2**31 - 1, default=context_tokens),
        own_indexers=own,
        draft_own_indexers=draft_own,
        compress_ratios=ratios,
        draft_compress_ratios=draft_ratios,
        window_tokens=v4_window(keys) if v4 else 0,
        draft_layers_told=told,
        notes=keys.all_notes(),
    )
