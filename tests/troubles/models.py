"""Models and checkpoints that the integration of transformers does not take."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tiny_checkpoints import save_tiny
from tiny_models import build
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from dsa_exec.integrations.transformers import attached, enable, load_checkpoint, load_tiny
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
    enable(LlamaForCausalLM(LlamaConfig(vocab_size=16, **sizes)))


@produces("NotSupported")
def a_configuration_in_the_place_of_a_model():
    enable(tiny().config)


@produces("NotSupported")
def a_wrapped_model():
    enable(torch.nn.DataParallel(tiny()))


@produces("NotSupported")
def weights_that_are_quantised():
    model = copy.deepcopy(tiny())
    model.config.quantization_config = {"quant_method": "fp8"}
    enable(model)


@produces("NotSupported")
def more_to_select_than_ops_take():
    enable(build("deepseek_v32", index_topk=8192))


@produces("NotSupported")
def shared_indexers_with_nothing_to_share():
    enable(build("glm_moe_dsa", indexer_types=["shared", "full", "full", "shared"]))


class _Adapted(torch.nn.Linear):
    """A projection with an adapter, or of quantised weights."""


@produces("NotSupported")
def an_adapter_where_ours_would_pass_it_by():
    model = copy.deepcopy(tiny())
    model.model.layers[0].self_attn.kv_b_proj = _Adapted(2, 2)
    enable(model)


@produces("NotSupported")
def weights_of_eight_bits():
    model = copy.deepcopy(tiny())
    model.model.layers[0].self_attn.kv_b_proj.to(torch.float8_e4m3fn)
    enable(model)


@produces("NotSupported")
def a_hook_where_ours_would_pass_it_by():
    hook = tiny().model.layers[0].self_attn.kv_b_proj.register_forward_hook(lambda *_: None)
    try:
        enable(tiny())
    finally:
        hook.remove()


@produces("NotSupported")
def a_forward_pass_that_was_replaced():
    model = copy.deepcopy(tiny())
    model.model.layers[0].self_attn.forward = lambda *_: None
    enable(model)


@produces("NotSupported")
def another_attention_on_top():
    with attached(tiny()), torch.no_grad():
        tiny().set_attn_implementation("sdpa")
        tiny()(PROMPT)


@produces("NotSupported")
def a_configuration_of_an_enabled_model():
    with attached(tiny()):
        plain = AutoModelForCausalLM.from_config(copy.deepcopy(tiny().config))
        plain(PROMPT)


@produces("NotSupported")
def a_device_map_without_accelerate(monkeypatch):
    monkeypatch.setattr("dsa_exec.integrations.transformers.spread.is_accelerate_available", lambda *_: False)
    load_tiny(CPU, device_map="auto")


@produces("NotFinite")
def weights_of_nan():
    model = copy.deepcopy(tiny())
    torch.nn.init.constant_(model.lm_head.weight, torch.nan)
    continue_greedily(model, [100, 101], 2)


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


def _checkpoint(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "v32", "deepseek_v32")
    return Path("v32")


@produces("CheckpointError")
def a_tensor_of_another_shape(tmp_path, monkeypatch):
    folder = _checkpoint(tmp_path, monkeypatch)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"][:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_checkpoint(folder, CPU)


@produces("CheckpointError")
def a_tensor_that_is_missing(tmp_path, monkeypatch):
    folder = _checkpoint(tmp_path, monkeypatch)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    load_checkpoint(folder, CPU)


@produces("CheckpointError")
def more_layers_than_the_configuration_has(tmp_path, monkeypatch):
    folder = _checkpoint(tmp_path, monkeypatch)
    smaller = save_tiny(tmp_path / "smaller", "deepseek_v32", num_hidden_layers=1)
    (smaller / "config.json").replace(folder / "config.json")
    load_checkpoint(folder, CPU)
