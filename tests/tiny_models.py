"""Tiny models of both types, prompts for them, and their continuation on our ops."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, DeepseekV32Config, GlmMoeDsaConfig

from dsa_exec.integrations.transformers import DsaCache, attached
from dsa_exec.integrations.transformers.greedy import continue_greedily

TINY = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "moe_intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "n_shared_experts": 1,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 64,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 64,
    "v_head_dim": 32,
    "index_n_heads": 32,
    "index_head_dim": 128,
    "index_topk": 48,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
CONFIGS = {
    "deepseek_v32": lambda **changes: DeepseekV32Config(**{**TINY, "num_hidden_layers": 2, **changes}),
    "glm_moe_dsa": lambda **changes: GlmMoeDsaConfig(
        **{**TINY, "num_hidden_layers": 4, "indexer_types": ["full", "shared", "full", "shared"], **changes}
    ),
}
UNQUANTISED = {"index_k_format": "model", "kv_format": "model"}
PROMPT = 150  # more than index_topk, more than two pages
NEW = 12


def build(kind: str, **changes):
    """A tiny model. Embeddings and head are wide, so that the likeliest token is a clear one; layers are narrow, so
    that a rounding difference in one does not grow into another selection in the next.
    """
    model = AutoModelForCausalLM.from_config(CONFIGS[kind](**changes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.06 if "layers" in name else 0.15, generator=generator)
    return model.eval()


def prompt(seed: int, length: int = PROMPT) -> list[int]:
    return torch.randint(1, 256, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def ours(model, tokens, new=NEW):
    with attached(model):
        cache = DsaCache.for_model(model, max_tokens=len(tokens) + new)
        return continue_greedily(model, tokens, new, cache=cache)
