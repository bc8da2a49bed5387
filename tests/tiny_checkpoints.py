"""Tiny checkpoints of both model types in Hugging Face format, for tests that load one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DeepseekV32Config, GlmMoeDsaConfig

GEOMETRY = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "index_n_heads": 32,
    "index_topk": 64,
    "max_position_embeddings": 512,
    "eos_token_id": None,
    "pad_token_id": 0,
}

TEXT = "The quick brown fox jumps over the lazy dog. " * 6
"""A prompt of more bytes than `index_topk`, and than four pages of a cache."""


def save_tiny(folder: Path, kind: str, **changes: Any) -> Path:
    """Save a checkpoint of random weights, without a tokenizer, and give its folder."""
    make = DeepseekV32Config if kind == "deepseek_v32" else GlmMoeDsaConfig
    model = AutoModelForCausalLM.from_config(make(**{**GEOMETRY, **changes}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.1, generator=generator)
    model.save_pretrained(folder)
    return folder
