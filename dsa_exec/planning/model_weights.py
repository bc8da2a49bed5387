"""The weights of a model's layers by how ranks share them, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsa_exec.core.errors import PlanError
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.geometry_keys import MOST_LAYERS, ConfigKeys
from dsa_exec.memory.geometry_widths import WIDEST

_DEFAULTS: dict[str, dict[str, int]] = {
    "deepseek_v32": {
        "hidden_size": 7168,
        "num_attention_heads": 128,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "intermediate_size": 18432,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "vocab_size": 129_280,
    },
    "glm_moe_dsa": {
        "hidden_size": 6144,
        "num_attention_heads": 64,
        "q_lora_rank": 2048,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "intermediate_size": 12288,
        "moe_intermediate_size": 2048,
        "n_routed_experts": 256,
        "n_shared_experts": 1,
        "num_experts_per_tok": 8,
        "vocab_size": 154_880,
    },
}
"""What transformers gives keys that a configuration lacks."""

_DENSE_LAYERS = 3
_LARGEST = 2**24
_EMBEDDING_BYTES = 2
"""A weight takes a byte (FP8), but the embedding and the head are bf16."""


@dataclass(frozen=True, slots=True)
class ModelWeights:
    """How many weights the parts of a model have.

    Attributes:
        hidden: channels of a token between layers.
        heads: of attention.
        dense: for each layer, whether it has one MLP for all tokens and no experts.
        attention_whole: of a layer's attention, those that every rank has.
        attention_by_heads: those that belong to heads, all heads together.
        indexer: of a layer's indexer, which every rank has.
        dense_mlp: of the MLP of a dense layer.
        expert: of one expert.
        experts: routed experts of a layer.
        experts_a_token: of those, how many work for a token.
        always: of a layer with experts, those that work for every token: shared experts and the router.
        vocabulary: of the embedding, and of the head again.
        notes: which keys were absent.
    """

    hidden: int
    heads: int
    dense: tuple[bool, ...]
    attention_whole: int
    attention_by_heads: int
    indexer: int
    dense_mlp: int
    expert: int
    experts: int
    experts_a_token: int
    always: int
    vocabulary: int
    notes: tuple[str, ...]

    @property
    def head_bytes(self) -> int:
        """The embedding, or the head."""
        return _EMBEDDING_BYTES * self.vocabulary


def weights_of(config: Mapping[str, Any], geometry: ModelGeometry) -> ModelWeights:
    """The weights that a Hugging Face `config.json` describes.

    Raises:
        PlanError: it is a model for which no kernel's times are there.
        GeometryError: a value is out of range.
    """
    if geometry.model_type not in _DEFAULTS:
        wanted = f"one of {', '.join(_DEFAULTS)}, since no time of others' attention was measured"
        raise PlanError("model of a sweep", geometry.model_type, wanted)
    keys, defaults = ConfigKeys(config, geometry.origin), _DEFAULTS[geometry.model_type]
    it = {key: keys.number(key, low=1, high=_LARGEST, default=value) for key, value in defaults.items()}
    hidden, heads, query = it["hidden_size"], it["num_attention_heads"], it["q_lora_rank"]
    latent, rope, nope, value = geometry.latent_dim, geometry.rope_dim, it["qk_nope_head_dim"], it["v_head_dim"]
    if it["num_experts_per_tok"] > it["n_routed_experts"]:
        raise keys.refusal("num_experts_per_tok", f"at most {it['n_routed_experts']}, the routed experts")
    if heads > WIDEST:
        raise keys.refusal("num_attention_heads", f"at most {WIDEST}")
    expert = 3 * hidden * it["moe_intermediate_size"]
    dense = _dense(keys, geometry)
    return ModelWeights(
        hidden=hidden,
        heads=heads,
        dense=dense,
        attention_whole=hidden * query + hidden * (latent + rope),
        attention_by_heads=heads * (query * (nope + rope) + latent * (nope + value) + value * hidden),
        indexer=query * geometry.index_heads * geometry.index_head_dim
        + hidden * (geometry.index_head_dim + geometry.index_heads),
        dense_mlp=3 * hidden * it["intermediate_size"],
        expert=expert,
        experts=it["n_routed_experts"],
        experts_a_token=it["num_experts_per_tok"],
        always=it["n_shared_experts"] * expert + hidden * it["n_routed_experts"],
        vocabulary=it["vocab_size"] * hidden,
        notes=keys.all_notes(),
    )


def _dense(keys: ConfigKeys, geometry: ModelGeometry) -> tuple[bool, ...]:
    """Published files count the dense layers at the beginning; transformers writes a word for each layer."""
    kinds = keys.entries("mlp_layer_types", geometry.layers, geometry.draft_layers)
    if kinds is not None:
        if not set(kinds[0]) <= {"dense", "sparse"}:
            raise keys.refusal("mlp_layer_types", "a list of dense and sparse")
        return tuple(kind == "dense" for kind in kinds[0])
    first = keys.number("first_k_dense_replace", low=0, high=MOST_LAYERS, default=_DENSE_LAYERS)
    return tuple(layer < first for layer in range(geometry.layers))
