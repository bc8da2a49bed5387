"""Enabling a model, or all models of a type, for good: everything works as before, and can be undone."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from tiny_checkpoints import save_tiny
from tiny_models import CONFIGS, NEW, UNQUANTISED, build, prompt
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, DeepseekV32ForCausalLM, GlmMoeDsaForCausalLM
from transformers.models.deepseek_v32 import modeling_deepseek_v32 as deepseek

from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached, disable, enable, is_enabled

CLASSES = {"deepseek_v32": DeepseekV32ForCausalLM, "glm_moe_dsa": GlmMoeDsaForCausalLM}
TOKENS = torch.tensor([prompt(0, 90)])


@pytest.fixture(params=list(CONFIGS))
def kind(request):
    yield request.param
    disable(request.param)


@pytest.fixture
def model(kind):
    return build(kind)


def generated(model) -> torch.Tensor:
    with settings.override(**UNQUANTISED):
        return model.generate(TOKENS, max_new_tokens=NEW, do_sample=False)


def ops_of(run) -> set[str]:
    with record_calls() as trace:
        run()
    return {op for op, _ in trace.decisions}


def test_an_enabled_model_generates_on_our_ops_without_another_word(model):
    """No cache is given, ours are used, and the tokens are those of plain transformers; then all is as it was."""
    plain, modules = generated(model), list(model.modules())
    classes, keys = [type(module) for module in modules], list(model.state_dict())
    enable(model)
    assert is_enabled(model)
    assert {"kv_store", "index_select", "paged_mqa_logits"} <= ops_of(lambda: check_tokens(model, plain))
    assert list(model.modules()) == modules
    assert list(model.state_dict()) == keys
    disable(model)
    assert not is_enabled(model)
    assert [type(module) for module in model.modules()] == classes
    assert model.config._attn_implementation == "sdpa"
    assert ops_of(lambda: check_tokens(model, plain)) == set()


def check_tokens(model, wanted: torch.Tensor) -> None:
    assert torch.equal(generated(model), wanted)


def test_doing_it_twice_is_doing_it_once(model):
    """Enabling what is enabled and disabling what is not do nothing."""
    enable(model)
    enable(model)
    disable(model)
    disable(model)
    assert type(model.model.layers[0].self_attn).__module__.startswith("transformers.")
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("options", [{}, {"use_cache": False}], ids=["cache", "no cache"])
def test_one_pass_without_a_cache(model, options):
    """A call of the model gives the logits of plain transformers, and a cache that can be gone on with if it may."""
    with torch.no_grad(), settings.override(**UNQUANTISED):
        plain = model(TOKENS).logits
        enable(model)
        out = model(TOKENS[:, :70], **options)
        torch.testing.assert_close(out.logits, plain[:, :70], atol=1e-4, rtol=1e-4)
        if options:
            assert out.past_key_values is None
            return
        rest = model(TOKENS[:, 70:], past_key_values=out.past_key_values)
    torch.testing.assert_close(rest.logits, plain[:, 70:], atol=1e-4, rtol=1e-4)
    assert out.past_key_values.get_seq_length() == 90


def test_generating_without_a_cache_at_all(model):
    """`use_cache=False` reads everything anew for each token, to the same end."""
    plain = model.generate(TOKENS, max_new_tokens=3, do_sample=False)
    enable(model)
    with settings.override(**UNQUANTISED):
        assert torch.equal(model.generate(TOKENS, max_new_tokens=3, do_sample=False, use_cache=False), plain)


def test_the_caches_of_a_pass_without_one_live_as_long_as_a_layer(model):
    """Layers of such a pass share what was worked out for it, and no layer's cache outlives it."""
    from dsa_exec.integrations.transformers import cache

    enable(model)
    held = []
    for layer in model.model.layers:
        layer.register_forward_hook(lambda *_: held.append([len(it.pools) for it in cache._without_cache.values()]))
    with torch.no_grad():
        model(TOKENS, use_cache=False)
    assert held == [[1]] * len(model.model.layers)
    assert len(cache._without_cache) == 0


def test_training_without_a_cache(model):
    """As trainers call it, layers computed again in the backward pass: the gradients of plain transformers."""

    def gradients() -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
        return {name: it.grad.clone() for name, it in model.named_parameters() if it.grad is not None}

    model.train()
    plain = gradients()
    enable(model)
    with settings.override(**UNQUANTISED):
        ours = gradients()
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the name that 5.17 has
            model.gradient_checkpointing_enable({"use_reentrant": False})
        again = gradients()
    assert plain.keys() == ours.keys() == again.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(again[name], ours[name])


def test_a_type_is_enabled_for_models_that_are_loaded_later(kind, tmp_path):
    """By every way that transformers has, with the same parameters; models that were there before stay as they are."""
    folder = save_tiny(tmp_path, kind)
    before = AutoModelForCausalLM.from_pretrained(folder)
    plain = generated(before)
    enable(kind)
    enable(kind)
    assert is_enabled(kind)
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not (info["missing_keys"])
    assert not (info["unexpected_keys"])
    assert {"kv_store", "index_select"} <= ops_of(lambda: check_tokens(loaded, plain))
    others = [
        AutoModelForCausalLM.from_config(copy.deepcopy(before.config)),
        CLASSES[kind](copy.deepcopy(before.config)),
        AutoModel.from_pretrained(folder),
    ]
    for other in (loaded, *others):
        assert is_enabled(other)
        assert other.config._attn_implementation == "dsa"
    assert not is_enabled(before)
    check_tokens(before, plain)
    disable(kind)
    disable(kind)
    assert not is_enabled(kind)
    assert not is_enabled(AutoModelForCausalLM.from_pretrained(folder))
    check_tokens(loaded, plain)  # stays enabled
    disable(loaded)
    assert ops_of(lambda: check_tokens(loaded, plain)) == set()


def test_a_head_is_not_needed(model):
    """The decoder by itself can be enabled too."""
    with torch.no_grad():
        plain = model.model(TOKENS).last_hidden_state
        enable(model.model)
        with settings.override(**UNQUANTISED):
            for cache in (None, DsaCache.for_model(model.model), DsaCache.for_model(model.model, max_tokens=90)):
                got = model.model(TOKENS, past_key_values=cache).last_hidden_state
                torch.testing.assert_close(got, plain, atol=1e-4, rtol=1e-4)


def test_attached_leaves_an_enabled_model_enabled(model):
    """What a block did not enable it does not disable, nor does a block within a block."""
    with attached(model):
        with attached(model):
            pass
        assert is_enabled(model)
    assert not is_enabled(model)
    enable(model)
    with attached(model):
        pass
    assert is_enabled(model)


def test_a_copy_of_an_enabled_model_is_enabled(model):
    """Nothing of ours stands in the way of a deep copy, which can be disabled by itself."""
    plain = generated(model)
    enable(model)
    copied = copy.deepcopy(model)
    disable(model)
    assert ops_of(lambda: check_tokens(copied, plain)) != set()
    disable(copied)
    assert not is_enabled(copied)


def test_what_is_saved_knows_nothing_of_us(model, tmp_path):
    """A checkpoint of an enabled model is one of transformers."""
    plain = generated(model)
    enable(model)
    model.save_pretrained(tmp_path)
    assert "dsa" not in (tmp_path / "config.json").read_text().replace("glm_moe_dsa", "")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not is_enabled(loaded)
    check_tokens(loaded, plain)


def test_another_implementation_is_refused_in_words(kind, tmp_path):
    """Asked for when loading or later: an enabled model attends by ours, and says how to get another."""
    enable(kind)
    asked = AutoModelForCausalLM.from_pretrained(save_tiny(tmp_path, kind), attn_implementation="eager")
    later = build(kind)
    later.set_attn_implementation("eager")
    for model in (asked, later):
        with pytest.raises(NotSupported, match=r"attn_implementation is 'eager'.*set_attn_implementation\('dsa'\)"):
            generated(model)
        model.set_attn_implementation("dsa")
        assert generated(model).shape == (1, 90 + NEW)
    later.set_attn_implementation("eager")
    disable(later)
    assert later.config._attn_implementation == "eager"
    assert generated(later).shape == (1, 90 + NEW)


def test_what_others_have_replaced_is_refused():
    """Another package's attention in transformers' module, an attention whose forward pass was replaced, no model."""

    class Other(deepseek.DeepseekV32Attention):
        pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deepseek, "DeepseekV32Attention", Other)
        with pytest.raises(NotSupported, match="DeepseekV32Attention was replaced by Other: undo that first"):
            enable("deepseek_v32")
        with pytest.raises(NotSupported, match="the model's attention is Other, not transformers' own"):
            enable(build("deepseek_v32"))
    for name in ("self_attn", "self_attn.indexer"):
        model = build("deepseek_v32")
        module = model.model.layers[1].get_submodule(name)
        module.forward = module.forward
        with pytest.raises(NotSupported, match=f"forward pass of {type(module).__name__} was replaced"):
            enable(model)
        assert not is_enabled(model)
    with pytest.raises(NotSupported, match="DeepseekV32ForCausalLM has no attention of transformers' own"):
        enable(build("deepseek_v32", num_hidden_layers=0, first_k_dense_replace=0))
    model = build("deepseek_v32")
    model.model.layers[0].self_attn.indexer = nn.Identity()
    with pytest.raises(NotSupported, match="the indexer is Identity"):
        enable(model)
    for call in (enable, disable, is_enabled):
        with pytest.raises(NotSupported, match="model_type='llama': deepseek_v32 and glm_moe_dsa are supported"):
            call("llama")


def test_an_adapter_that_comes_later_is_refused_in_words(model):
    """What would silently have no effect is looked for in every pass."""
    enable(model)
    projection = model.model.layers[-1].self_attn.kv_b_proj
    projection.register_forward_hook(lambda *_: None)
    with pytest.raises(NotSupported, match="kv_b_proj has a hook"):
        generated(model)


def test_a_plain_layer_in_an_enabled_model_is_refused(model):
    """A layer that was put there later would attend by transformers' own code, to what is no mask for it."""
    enable(model)
    model.model.layers[0] = build(model.config.model_type).model.layers[0]
    model.model.layers[0].self_attn.config = model.config
    with torch.no_grad(), pytest.raises(NotSupported, match="kept an attention module of its own"):
        model(TOKENS[:, :2])


def test_an_enabled_model_takes_a_cache_of_ours(model):
    """One that was allocated beforehand, with room for what comes."""
    plain = generated(model)
    enable(model)
    with settings.override(**UNQUANTISED):
        cache = DsaCache.for_model(model, max_tokens=90 + NEW)
        got = model.generate(TOKENS, max_new_tokens=NEW, do_sample=False, past_key_values=cache)
    assert torch.equal(got, plain)
