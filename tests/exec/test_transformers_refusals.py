"""What is no model, or one that our attention cannot run: a sentence when it is given, not an error in a later pass."""

from __future__ import annotations

import pytest
import torch
from tiny_models import CONFIGS, build, prompt
from torch import nn
from transformers import AutoModelForCausalLM, DeepseekV32ForCausalLM, LlamaConfig, LlamaForCausalLM

from dsa_exec.integrations.transformers import NotSupported, attached, disable, enable, is_enabled

TOKENS = torch.tensor([prompt(0, 60)])
A_MODEL = "is no model: wanted a deepseek_v32 or glm_moe_dsa model of transformers"
NO_CONFIG = "has no config: wanted a whole deepseek_v32 or glm_moe_dsa model"
CALLS = {"enable": enable, "disable": disable, "attached": lambda target: attached(target).__enter__()}


def llama() -> LlamaForCausalLM:
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 64}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=1, num_key_value_heads=2, **sizes))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda: None, f"None {A_MODEL}"),
        (lambda: 3, f"3 {A_MODEL}"),
        (CONFIGS["deepseek_v32"], f"a DeepseekV32Config {A_MODEL}"),
        (lambda: DeepseekV32ForCausalLM, f"the class DeepseekV32ForCausalLM {A_MODEL}"),
        (lambda: nn.Linear(2, 2), f"Linear {NO_CONFIG}"),
        (lambda: nn.Sequential(build("deepseek_v32")), f"Sequential {NO_CONFIG}"),
        (lambda: build("deepseek_v32").model.layers[0], f"DeepseekV32DecoderLayer {NO_CONFIG}"),
        (
            lambda: nn.DataParallel(build("deepseek_v32")),
            "DataParallel wraps a model: give the model in it",
        ),
        (llama, "model_type='llama': deepseek_v32 and glm_moe_dsa are supported"),
    ],
    ids=["none", "number", "config", "class", "linear", "sequential", "layer", "parallel", "llama"],
)
def test_what_is_no_model_of_ours(call, target, words):
    """A sentence that tells what was given."""
    with pytest.raises(NotSupported, match=f"^{words}"):
        CALLS[call](target())


def test_a_type_is_not_attached():
    """A block is for a model; whether something is enabled is asked of models and types."""
    with pytest.raises(NotSupported, match=f"'deepseek_v32' {A_MODEL}"), attached("deepseek_v32"):
        pass
    with pytest.raises(NotSupported, match=f"a DeepseekV32Config {A_MODEL}"):
        is_enabled(CONFIGS["deepseek_v32"]())


def test_what_is_enabled_within_something_else_can_be_disabled():
    """A wrapper needs no configuration for that."""
    model = build("deepseek_v32")
    enable(model)
    disable(nn.Sequential(model))
    assert not is_enabled(model)


CONFIGURATIONS = [
    ("deepseek_v32", {"index_topk": 4097}, "index_topk is 4097; wanted an integer from 1 to 4096"),
    ("deepseek_v32", {"index_topk": 0}, "index_topk is 0; wanted an integer from 1 to 4096"),
    ("glm_moe_dsa", {"index_topk": -1}, "index_topk is -1; wanted an integer from 1 to 4096"),
    (
        "glm_moe_dsa",
        {"indexer_types": ["shared", "full", "full", "shared"]},
        r"indexer_types\[0\] is 'shared'; wanted 'full': no layer before the first has selected anything",
    ),
    (
        "glm_moe_dsa",
        {"indexer_types": ["full", "none", "full", "shared"]},
        r"indexer_types\[1\] is 'none'; wanted 'full' or 'shared'",
    ),
]


@pytest.mark.parametrize(("kind", "changes", "words"), CONFIGURATIONS)
def test_a_configuration_that_cannot_be_run(kind, changes, words):
    """Refused when a model is enabled, and when one is made of a type that is."""
    with pytest.raises(NotSupported, match=words):
        enable(build(kind, **changes))
    enable(kind)
    try:
        with pytest.raises(NotSupported, match=words):
            AutoModelForCausalLM.from_config(CONFIGS[kind](**changes))
    finally:
        disable(kind)


def test_types_of_indexers_that_are_too_few():
    """One for each layer is wanted; more do no harm, as after a model was cut."""
    model = build("glm_moe_dsa")
    model.config.indexer_types = ["full"]
    with pytest.raises(NotSupported, match="indexer_types has 1 entries; wanted one for each of 4 layers"):
        enable(model)
    model.config.indexer_types = ["full"] * 9
    enable(model)
    assert is_enabled(model)


def test_dropout_of_attention_is_refused_in_training():
    """Ours drops nothing; where plain transformers drops nothing either, all is well."""
    for kind in CONFIGS:
        model = build(kind, attention_dropout=0.5)
        enable(model)
        with torch.no_grad():
            assert model(TOKENS).logits.isfinite().all()
        model.train()
        with pytest.raises(NotSupported, match=r"attention_dropout is 0.5, and our attention drops nothing"):
            model(TOKENS)
        disable(model)
        assert model(TOKENS).logits.isfinite().all()


def test_weights_that_no_configuration_calls_quantised():
    """The weight's own dtype tells, and the module of a class that is called Linear too."""
    model = build("deepseek_v32")
    projection = model.model.layers[1].self_attn.kv_b_proj
    projection.weight = nn.Parameter(projection.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(NotSupported, match="the weight of kv_b_proj is torch.float8_e4m3fn: our attention"):
        enable(model)
    assert not is_enabled(model)
    namesake = type("Linear", (nn.Linear,), {"__module__": "others.quantised"})
    model.model.layers[0].self_attn.kv_b_proj.__class__ = namesake
    with pytest.raises(NotSupported, match=r"kv_b_proj is a others\.quantised\.Linear, not a plain Linear"):
        enable(model)
