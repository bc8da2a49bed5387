"""Configurations of published models, with the keys that a planner reads, as their files have them."""

from __future__ import annotations

from typing import Any

DEEPSEEK_V32: dict[str, Any] = {
    "model_type": "deepseek_v32",
    "num_hidden_layers": 61,
    "num_nextn_predict_layers": 1,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "index_n_heads": 64,
    "index_head_dim": 128,
    "index_topk": 2048,
    "max_position_embeddings": 163840,
}

GLM_5: dict[str, Any] = {
    "model_type": "glm_moe_dsa",
    "num_hidden_layers": 78,
    "num_nextn_predict_layers": 1,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "index_n_heads": 32,
    "index_head_dim": 128,
    "index_topk": 2048,
    "max_position_embeddings": 202752,
}

V4_RATIOS = [0, 0, *[4, 128] * 20, 4]
"""43 layers: 21 of ratio 4, 20 of ratio 128, 2 that have only the window."""

DEEPSEEK_V4_FLASH: dict[str, Any] = {
    "model_type": "deepseek_v4",
    "num_hidden_layers": 43,
    "num_nextn_predict_layers": 1,
    "head_dim": 512,
    "qk_rope_head_dim": 64,
    "index_n_heads": 64,
    "index_head_dim": 128,
    "index_topk": 512,
    "max_position_embeddings": 1048576,
    "sliding_window": 128,
    "compress_ratios": [*V4_RATIOS, 0],
}
"""44 ratios for 43 layers: the last is the draft layer's."""


def with_layers(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The same model with fewer layers, the first of them."""
    fewer = {**config, "num_hidden_layers": layers}
    if "compress_ratios" in config:
        fewer["compress_ratios"] = config["compress_ratios"][:layers]
    return fewer
