"""The configuration of an enabled model is its own: others that are made of the same one stay plain, or say why not."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from tiny_models import CONFIGS, UNQUANTISED, build, prompt
from transformers import AutoModelForCausalLM

from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.integrations.transformers import NotSupported, disable, enable, is_enabled

TOKENS = torch.tensor([prompt(0, 90)])
NOT_ENABLED = (
    r"_attn_implementation is 'dsa', and the model is not enabled: enable\(model\), or "
    r"model.set_attn_implementation\('sdpa'\)"
)


@pytest.fixture(params=list(CONFIGS))
def kind(request):
    yield request.param
    disable(request.param)


def logits_of(model) -> torch.Tensor:
    with torch.no_grad(), settings.override(**UNQUANTISED):
        return model(TOKENS).logits


def ops_of(run) -> list:
    with record_calls() as trace:
        run()
    return list(trace.decisions)


def configs_of(model) -> set[int]:
    return {id(module.config) for module in model.modules() if hasattr(module, "config")}


def test_a_model_of_the_same_configuration_stays_plain(kind):
    """One of two is enabled, and again: the other runs as before, and what both were made of says nothing of us."""
    config = CONFIGS[kind]()
    first = AutoModelForCausalLM.from_config(config)
    second = type(first)(first.config)
    given, plain = first.config, logits_of(second)
    for _ in range(2):
        enable(first)
        assert given._attn_implementation == config._attn_implementation == "sdpa" or config is not given
        assert (first.config._attn_implementation, second.config._attn_implementation) == ("dsa", "sdpa")
        assert configs_of(first) == {id(first.config)}
        assert torch.equal(logits_of(second), plain)
        assert torch.equal(logits_of(copy.deepcopy(second)), plain)
        disable(first)
        assert first.config._attn_implementation == "sdpa"
        assert torch.equal(logits_of(second), plain)


def test_enabling_a_type_leaves_what_was_passed_to_a_constructor(kind):
    """Models that are made meanwhile attend by ours and have copies; what comes after is plain."""
    config = AutoModelForCausalLM.from_config(CONFIGS[kind]()).config
    before = copy.deepcopy(config)
    made = type(build(kind))
    enable(kind)
    ours, head_less = made(config), type(build(kind).model)(config)
    disable(kind)
    assert config.to_dict() == before.to_dict()
    assert config._attn_implementation == "sdpa"
    for model in (ours, head_less):
        assert is_enabled(model)
        assert model.config._attn_implementation == "dsa"
        assert configs_of(model) == {id(model.config)}
    plain = made(config)
    plain.load_state_dict(ours.state_dict())
    assert not is_enabled(plain)
    torch.testing.assert_close(logits_of(ours), logits_of(plain), atol=1e-4, rtol=1e-4)
    static = {"max_new_tokens": 3, "do_sample": False, "cache_implementation": "static"}
    with settings.override(**UNQUANTISED):  # its masks are made by the head, from the head's configuration
        assert torch.equal(ours.generate(TOKENS, **static), plain.generate(TOKENS, **static))


def test_a_plain_model_whose_configuration_says_ours(kind):
    """It says what to do, whichever way it came to that, and does it."""
    enabled = build(kind)
    enable(enabled)
    twin, later = AutoModelForCausalLM.from_config(copy.deepcopy(enabled.config)), build(kind)
    asked = AutoModelForCausalLM.from_config(CONFIGS[kind](), attn_implementation="dsa")
    later.set_attn_implementation("dsa")
    for model in (twin, asked, later):
        model.load_state_dict(enabled.state_dict())
        with pytest.raises(NotSupported, match=NOT_ENABLED):
            logits_of(model)
        with pytest.raises(NotSupported, match=NOT_ENABLED):
            model.generate(TOKENS, max_new_tokens=2)
    twin.set_attn_implementation("sdpa")
    enable(asked)
    torch.testing.assert_close(logits_of(twin), logits_of(enabled), atol=1e-4, rtol=1e-4)
    assert torch.equal(logits_of(asked), logits_of(enabled))
    disable(asked)
    assert torch.equal(logits_of(asked), logits_of(twin))
    asked.set_attn_implementation("dsa")
    with pytest.raises(NotSupported, match=NOT_ENABLED):
        logits_of(asked)


def test_a_plain_model_of_an_enabled_ones_configuration(kind):
    """It has a copy that says nothing of us, and both run as they are."""
    enabled = build(kind)
    enable(enabled)
    ours = logits_of(enabled)
    for make in (AutoModelForCausalLM.from_config, type(enabled)):
        twin = make(enabled.config)
        twin.load_state_dict(enabled.state_dict())
        assert not is_enabled(twin)
        assert (twin.config._attn_implementation, enabled.config._attn_implementation) == ("sdpa", "dsa")
        assert configs_of(twin) == {id(twin.config)}
        assert ops_of(lambda twin=twin: torch.testing.assert_close(logits_of(twin), ours, atol=1e-4, rtol=1e-4)) == []
    assert torch.equal(logits_of(enabled), ours)
    decoder = type(enabled.model)(enabled.config)
    assert configs_of(decoder) == {id(decoder.config)}
    assert decoder.config._attn_implementation == "sdpa"


def test_a_configuration_that_was_put_in_later(kind):
    """An enabled model that is given another configuration says so, and is enabled again with it."""
    model = build(kind)
    enable(model)
    ours, other = logits_of(model), copy.deepcopy(model.config)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config = other
    with pytest.raises(NotSupported, match=NOT_ENABLED):
        logits_of(model)
    enable(model)
    assert torch.equal(logits_of(model), ours)


LOADING = """
import pickle, sys, torch
model = pickle.load(open(sys.argv[1], "rb"))
with torch.no_grad():
    torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[3])
"""


def test_an_enabled_model_runs_from_a_pickle_in_a_fresh_process(tmp_path):
    """Loading is all that is done there: nothing is imported by hand, and the logits are the same."""
    model = build("deepseek_v32")
    enable(model)
    (tmp_path / "model").write_bytes(pickle.dumps(model))
    torch.save(TOKENS, tmp_path / "tokens")
    command = [sys.executable, "-c", LOADING, *(str(tmp_path / name) for name in ("model", "tokens", "logits"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        torch.testing.assert_close(torch.load(tmp_path / "logits"), model(TOKENS).logits)
