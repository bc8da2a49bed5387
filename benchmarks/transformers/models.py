"""The model whose memory and time are measured: DeepSeek-V3.2's attention, few layers, random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, DeepseekV32Config

ATTENTION = {
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "index_n_heads": 64,
    "index_head_dim": 128,
    "index_topk": 2048,
}
"""As in DeepSeek-V3.2."""

OTHERS = {
    "vocab_size": 1024,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "moe_intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 2,
    "max_position_embeddings": 163_840,
}
"""Small, so that attention is what is measured; 16 heads, what a rank of eight has of 128."""

SMALL = {
    "q_lora_rank": 64,
    "index_n_heads": 32,
    "index_topk": 128,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}
"""What is smaller where there is no GPU."""

ON_A_GPU, ELSEWHERE = (4096, 32_768, 131_072), (256, 512, 1024)
"""Contexts."""


def geometry(changes: dict[str, int], *, on_gpu: bool) -> dict[str, int]:
    """What the model is made of."""
    return {**ATTENTION, **OTHERS, **({} if on_gpu else SMALL), **changes}


def synthetic(sizes: dict[str, int], device: torch.device, dtype: torch.dtype) -> Any:
    """A model of these sizes."""
    make: Any = DeepseekV32Config
    config = make(
        **sizes,
        num_key_value_heads=sizes["num_attention_heads"],
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        eos_token_id=None,
        pad_token_id=None,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()
