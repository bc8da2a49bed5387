"""Models, caches and checkpoints that the integration of transformers does not take."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from dsa_exec.integrations.transformers import DsaCache, attached, load_checkpoint, load_tiny
from dsa_exec.integrations.transformers.greedy import continue_greedily
from troubles import produces

CPU = torch.device("cpu")
PROMPT = torch.tensor([[100, 101, 102, 103]])


@functools.cache
def tiny():
    """The model that ships with the project."""
    return load_tiny(CPU).model


@produces("NotSupported")
def another_model():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    with attached(LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes))):
        pass


@produces("NotSupported")
def a_cache_that_another_attention_filled():
    cache = DynamicCache(config=tiny().config)
    with torch.no_grad():
        tiny()(PROMPT, past_key_values=cache)
        with attached(tiny()):
            tiny()(PROMPT, past_key_values=cache)


@produces("NotSupported")
def another_attention_on_top():
    with attached(tiny()), torch.no_grad():
        tiny().set_attn_implementation("sdpa")
        tiny()(PROMPT)


@produces("NotSupported")
def a_hook_where_ours_would_pass_it_by():
    hook = tiny().model.layers[0].self_attn.kv_b_proj.register_forward_hook(lambda *_: None)
    try:
        with attached(tiny()):
            pass
    finally:
        hook.remove()


@produces("NotSupported")
def padding_on_the_right():
    mask = torch.tensor([[1, 1, 1, 0]])
    with attached(tiny()), torch.no_grad():
        tiny()(PROMPT, attention_mask=mask, past_key_values=DsaCache.for_model(tiny(), max_tokens=16))


@produces("NotSupported")
def training_over_an_fp8_cache():
    with attached(tiny()):
        out = tiny()(PROMPT, past_key_values=DsaCache.for_model(tiny(), max_tokens=16))
        out.logits.sum().backward()


@produces("NotFinite")
def weights_of_nan(monkeypatch):
    weight = tiny().lm_head.weight
    monkeypatch.setattr(tiny().lm_head, "weight", torch.nn.Parameter(torch.full_like(weight, torch.nan)))
    continue_greedily(tiny(), [100, 101], 2)


@produces("CheckpointError")
def a_folder_that_is_missing():
    load_checkpoint("v32", CPU)


@produces("CheckpointError")
def a_quantised_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("v32").mkdir()
    config = {"model_type": "deepseek_v32", "quantization_config": {"quant_method": "fp8"}}
    Path("v32", "config.json").write_text(json.dumps(config))
    load_checkpoint("v32", CPU)
