"""What transformers does with a cache and a model while ours are in the place of its own."""

from __future__ import annotations

import pytest
import torch
from changed_layers import Adapter, hooked, hooked_before, replaced
from tiny_models import CONFIGS, NEW, PROMPT, UNQUANTISED, build, ours, prompt
from torch import nn

from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.core.errors import RangeError
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached
from dsa_exec.integrations.transformers.greedy import agreement, continue_greedily


@pytest.fixture(params=list(CONFIGS))
def model(request):
    return build(request.param)


def generate(model, tokens: torch.Tensor, num_beams: int = 1, **options) -> torch.Tensor:
    """Greedy tokens on our ops, nothing quantised."""
    with settings.override(**UNQUANTISED), attached(model):
        cache = DsaCache.for_model(model, max_tokens=PROMPT + 2 * NEW, batch_size=len(tokens) * num_beams)
        options |= {"max_new_tokens": NEW, "do_sample": False, "num_beams": num_beams}
        return model.generate(tokens, past_key_values=cache, **options)


def test_cropping_forgets_the_last_tokens(model):
    """After a crop the cache goes on as if the tokens had never been read, whichever way the number is given."""
    tokens = torch.tensor([prompt(0, 80)])
    with torch.no_grad(), attached(model):
        caches = [DsaCache.for_model(model, max_tokens=100) for _ in range(3)]
        model(tokens[:, :70], past_key_values=caches[0])
        for cache in caches[1:]:
            model(torch.cat([tokens[:, :70], tokens[:, :9]], 1), past_key_values=cache)
        caches[1].crop(-9)
        caches[2].crop(70)
        assert [cache.get_seq_length() for cache in caches] == [70, 70, 70]
        first, *others = [model(tokens[:, 70:], past_key_values=cache).logits for cache in caches]
        for other in others:
            torch.testing.assert_close(other, first, atol=1e-5, rtol=1e-5)
        caches[0].crop(0)
        assert caches[0].get_seq_length() == 80
        caches[0].crop(-99)
        assert caches[0].get_seq_length() == 0
        assert caches[0].is_croppable


def test_drafted_tokens_are_verified_and_dropped(model):
    """Assisted generation, which crops what it does not keep, gives the tokens of plain generation."""
    tokens = torch.tensor([prompt(0, 40) * 2])
    plain = model.generate(tokens, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(generate(model, tokens, prompt_lookup_num_tokens=3), plain)


def test_no_token_at_all_is_a_sentence(model):
    """An empty prompt names the argument of transformers that is empty."""
    with pytest.raises(RangeError, match="input_ids holds no token; wanted at least one"):
        generate(model, torch.zeros(1, 0, dtype=torch.long))


def test_a_cache_for_other_requests_is_refused(model):
    """Fewer requests than the cache was made for are as wrong as more: their pages would be those of others."""
    with attached(model), pytest.raises(RangeError, match="batch_size=2 .*; wanted room for 1 requests"):
        model(torch.tensor([prompt(0, 8)]), past_key_values=DsaCache.for_model(model, max_tokens=16, batch_size=2))


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "x", True])
def test_room_is_asked_for_in_whole_numbers(model, wrong):
    """Tokens and requests of a cache are integers of at least 1."""
    for name in ("max_tokens", "batch_size"):
        with pytest.raises(RangeError, match=f"DsaCache.for_model: {name} is {wrong!r}; wanted an integer of at least"):
            DsaCache.for_model(model, **{"max_tokens": 8, name: wrong})


def test_padding_before_the_first_request(model):
    """Rows of padding see nothing, in the first request too: each request gets the tokens of transformers."""
    tokens = torch.tensor([prompt(2), prompt(3)])
    mask = torch.ones_like(tokens)
    tokens[0, :5] = mask[0, :5] = 0
    plain = model.generate(tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(generate(model, tokens, attention_mask=mask), plain)


def test_one_new_token_is_read_from_the_pages(model):
    """Prefill gathers keys and tokens; every later step uses the decode ops, once a layer and indexer."""
    layers = len(model.model.layers)
    indexers = sum(getattr(layer.self_attn, "indexer", None) is not None for layer in model.model.layers)
    with record_calls() as trace, attached(model):
        continue_greedily(model, prompt(0, 60), 4, cache=DsaCache.for_model(model, max_tokens=64))
    calls = {op: count for (op, _), (_, count) in trace.decisions.items()}
    assert (calls["sparse_mla_prefill"], calls["kv_gather"]) == (layers, layers)
    assert (calls["mqa_logits"], calls["index_gather"]) == (indexers, indexers)
    assert (calls["sparse_mla_decode"], calls["paged_mqa_logits"]) == (3 * layers, 3 * indexers)


@pytest.mark.parametrize(("index_topk", "length", "width"), [(48, 20, 20), (48, 60, 48), (4096, 60, 60)])
def test_a_selection_is_no_wider_than_the_tokens(index_topk, length, width):
    """As many positions as the model selects, or as there are tokens, for the largest selection that there is too."""
    model = build("deepseek_v32", index_topk=index_topk)
    plain = continue_greedily(model, prompt(0, length), 3)
    with settings.override(**UNQUANTISED, prefill_attention="sparse_bf16"):
        got = ours(model, prompt(0, length), 3)
    assert {tuple(selected.shape) for selected in got.selections.values()} == {(length, width)}
    assert got.tokens == plain.tokens


def test_head_weights_kept_in_f32(model):
    """In a bf16 model the projection of head weights may be f32: it gets its input in that."""
    model = model.to(torch.bfloat16)
    for layer in model.model.layers:
        if layer.self_attn.indexer is not None:
            layer.self_attn.indexer.weights_proj.float()
    plain = continue_greedily(model, prompt(0), 4)
    with settings.override(**UNQUANTISED):
        agreed = agreement(plain, ours(model, prompt(0), 4))
    assert agreed.selected_in_common > 0.9


def gradients(model, steps: int, **kwargs) -> dict[str, torch.Tensor]:
    """The gradients after some steps, with a reset of the cache between them."""
    model.zero_grad()
    for step in range(steps):
        tokens = torch.tensor([prompt(step, 40)])
        model(tokens, labels=tokens, **kwargs).loss.backward()
        if kwargs:
            kwargs["past_key_values"].reset()
    return {name: it.grad.clone() for name, it in model.named_parameters() if it.grad is not None}


def test_a_cache_trains_again_after_a_reset(model):
    """Two steps with one cache give the gradients of plain transformers: nothing of the first graph is left."""
    plain = gradients(model, 2)
    with settings.override(**UNQUANTISED), attached(model):
        got = gradients(model, 2, past_key_values=DsaCache.for_model(model, max_tokens=40))
    assert got.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-3)


def test_modes_set_inside_stay(model):
    """What `eval()` and `train()` say inside the block holds after it, for every module."""
    model.train()
    with attached(model):
        model.eval()
    assert not [name for name, module in model.named_modules() if module.training]
    with attached(model):
        model.train()
    assert not [name for name, module in model.named_modules() if not module.training]


def adapted(attention) -> None:
    attention.kv_b_proj.__class__ = Adapter


def parametrised(attention) -> None:
    nn.utils.parametrizations.weight_norm(attention.kv_b_proj)


def biased(attention) -> None:
    attention.kv_b_proj.bias = nn.Parameter(torch.zeros(attention.kv_b_proj.out_features))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (adapted, "kv_b_proj is a Adapter, not a plain Linear"),
        (parametrised, "kv_b_proj is a ParametrizedLinear"),
        (hooked, "kv_b_proj has a hook"),
        (hooked_before, "kv_b_proj has a hook"),
        (replaced, "kv_b_proj has a hook"),
        (biased, "kv_b_proj has a bias"),
    ],
)
def test_what_would_silently_have_no_effect_is_refused(model, change, words):
    """Our attention takes parts of this weight and never calls the module, so that it must be the weight alone."""
    change(model.model.layers[-1].self_attn)
    with pytest.raises(NotSupported, match=words), attached(model):
        pass


def test_hooks_elsewhere_have_their_effect(model):
    """Every other projection is called, with whatever is around it."""
    for layer in model.model.layers:
        for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj"):
            getattr(layer.self_attn, name).register_forward_hook(lambda module, inputs, output: output * 0.5)
    tokens = torch.tensor([prompt(0, 60)])
    plain = model.generate(tokens, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(generate(model, tokens), plain)
