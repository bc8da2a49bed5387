"""What `generate` does on our attention, over every cache that it may be given: the tokens of plain transformers."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from tiny_models import CONFIGS, UNQUANTISED, build, prompt
from transformers import DynamicCache, StaticCache

from dsa_config import settings
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached

PROMPT, NEW = 90, 10
TOKENS = torch.tensor([prompt(2, PROMPT), prompt(3, PROMPT)])
MASK = torch.ones_like(TOKENS)
TOKENS[1, :37] = MASK[1, :37] = 0
LEFT_PADDED = {"attention_mask": MASK}

CACHES = {
    "none": lambda model: {},
    "growing": lambda model: {"past_key_values": DsaCache.for_model(model)},
    "fixed": lambda model: {"past_key_values": DsaCache.for_model(model, max_tokens=PROMPT + NEW, batch_size=2)},
    "DynamicCache": lambda model: {"past_key_values": DynamicCache(config=model.config)},
    "DynamicCache without a config": lambda model: {"past_key_values": DynamicCache()},
    "StaticCache": lambda model: {"past_key_values": StaticCache(config=model.config, max_cache_len=PROMPT + NEW)},
    "static": lambda model: {"cache_implementation": "static"},
    "prefill in chunks": lambda model: {"prefill_chunk_size": 40},
}


@functools.cache
def model_of(kind: str):
    """One model for all tests, which leave it as it was."""
    return build(kind)


@pytest.fixture(params=list(CONFIGS))
def model(request):
    return model_of(request.param)


@pytest.fixture(params=list(CACHES))
def cache_of(request):
    return CACHES[request.param]


def greedy(model, tokens=TOKENS, **options) -> torch.Tensor:
    return model.generate(tokens, **{"max_new_tokens": NEW, "do_sample": False, **options})


@functools.cache
def plain_greedy(kind: str) -> torch.Tensor:
    return greedy(model_of(kind), **LEFT_PADDED)


def test_every_cache_gives_the_tokens_of_plain_transformers(model, cache_of):
    """A batch with left padding, greedily: given, made by name, or not mentioned."""
    with settings.override(**UNQUANTISED), attached(model):
        got = greedy(model, **LEFT_PADDED, **cache_of(model))
    assert torch.equal(got, plain_greedy(model.config.model_type))


def test_fp8_over_every_cache_gives_one_result(cache_of):
    """What a cache is made by does not change what is in it."""
    model = model_of("deepseek_v32")
    with attached(model):
        wanted = greedy(model, **LEFT_PADDED, **CACHES["fixed"](model))
        assert torch.equal(greedy(model, **LEFT_PADDED, **cache_of(model)), wanted)


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=["growing", "static"])
def test_sampling_several_texts_of_a_prompt(model, options):
    """`do_sample` with `num_return_sequences`: the same random numbers choose the same tokens."""
    wanted = sampled(model)
    with settings.override(**UNQUANTISED), attached(model):
        assert torch.equal(sampled(model, **options), wanted)


def sampled(model, **options) -> torch.Tensor:
    torch.manual_seed(0)
    options |= {"do_sample": True, "temperature": 0.7, "top_k": 20, "num_return_sequences": 3, **LEFT_PADDED}
    return model.generate(TOKENS, max_new_tokens=4, **options)


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=["growing", "static"])
def test_beams_move_between_requests(model, options):
    """Beam search copies the tokens of the beams that it goes on from, pages and all."""
    beams = {"num_beams": 3, "num_return_sequences": 2, **LEFT_PADDED}
    wanted = greedy(model, **beams)
    with settings.override(**UNQUANTISED), attached(model):
        assert torch.equal(greedy(model, **beams, **options), wanted)


def test_a_draft_of_another_model_is_verified(model):
    """Assisted generation with an assistant, whose draft is partly dropped; each model has its own attention."""
    wanted = greedy(model, TOKENS[:1])
    assistant = build("deepseek_v32", num_hidden_layers=1)
    options = {"assistant_model": assistant, "max_new_tokens": 6}
    with settings.override(**UNQUANTISED), attached(model):
        assert torch.equal(greedy(model, TOKENS[:1], **options), wanted[:, : PROMPT + 6])
        with attached(assistant):
            assert torch.equal(greedy(model, TOKENS[:1], **options), wanted[:, : PROMPT + 6])


def test_a_text_goes_on_from_the_cache_of_the_last_call(model):
    """The cache that `generate` returns is given to the next call, with more text: only that is read."""
    more = torch.cat([plain_greedy(model.config.model_type), TOKENS[:, 40:60]], 1)
    mask = torch.cat([MASK, torch.ones(2, NEW + 20, dtype=torch.long)], 1)
    wanted = greedy(model, more, attention_mask=mask)
    with settings.override(**UNQUANTISED), attached(model):
        first = greedy(model, **LEFT_PADDED, return_dict_in_generate=True)
        assert first.past_key_values.get_seq_length() == PROMPT + NEW - 1
        got = greedy(model, more, attention_mask=mask, past_key_values=first.past_key_values)
    assert torch.equal(got, wanted)


def read(model, cache) -> None:
    """Read the first 70 tokens, at the positions that `generate` gives them."""
    mask = MASK[:, :70]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    model(TOKENS[:, :70], attention_mask=mask, position_ids=positions, past_key_values=cache)


@pytest.mark.parametrize("name", ["growing", "fixed", "DynamicCache", "StaticCache"])
def test_a_prefix_is_read_once(name):
    """A copy of a cache goes on by itself: the same beginning serves several texts."""
    model = model_of("deepseek_v32")
    wanted = greedy(model, **LEFT_PADDED)
    with settings.override(**UNQUANTISED), attached(model), torch.no_grad():
        cache = CACHES[name](model)["past_key_values"]
        read(model, cache)
        for _ in range(2):
            assert torch.equal(greedy(model, **LEFT_PADDED, past_key_values=copy.deepcopy(cache)), wanted)
    assert cache.get_seq_length() == 70


def test_a_cache_made_under_inference_mode_is_used_outside(model):
    """And the other way round: what is written to is an ordinary tensor."""
    with settings.override(**UNQUANTISED), attached(model):
        for name in ("growing", "StaticCache", "fixed"):
            cache = CACHES[name](model)["past_key_values"]
            with torch.inference_mode():
                read(model, cache)
            got = greedy(model, **LEFT_PADDED, past_key_values=cache)
            assert torch.equal(got, plain_greedy(model.config.model_type))


def test_a_cache_that_plain_transformers_has_emptied_is_taken(model):
    """What another attention has filled is refused; after a reset nothing of it is left, and its layers become ours."""
    options = CACHES["StaticCache"](model)
    greedy(model, **LEFT_PADDED, **options)
    with settings.override(**UNQUANTISED), attached(model):
        with pytest.raises(NotSupported, match="was filled by another attention"):
            model(TOKENS, **options)
        options["past_key_values"].reset()
        got = greedy(model, **LEFT_PADDED, **options)
    assert torch.equal(got, plain_greedy(model.config.model_type))


def test_texts_that_end_are_padded_while_others_go_on(model):
    """Whatever a finished request reads after its end does not reach the others."""
    wanted = plain_greedy(model.config.model_type)
    end = int(wanted[0, PROMPT + 2])
    options = {"eos_token_id": end, "pad_token_id": 0, **LEFT_PADDED}
    plain = greedy(model, **options)
    with settings.override(**UNQUANTISED), attached(model):
        assert torch.equal(greedy(model, **options), plain)


def test_embeddings_in_the_place_of_tokens(model):
    """`inputs_embeds` are read as tokens are."""
    wanted = greedy(model, TOKENS[:1])[:, PROMPT:]
    embeds = model.get_input_embeddings()(TOKENS[:1])
    with settings.override(**UNQUANTISED), attached(model):
        got = model.generate(inputs_embeds=embeds, max_new_tokens=NEW, do_sample=False)
    assert torch.equal(got, wanted)


def test_room_runs_out_in_words(model):
    """A cache of fixed size that is too small for what is wanted says so when the room is needed."""
    from dsa_exec.core.errors import RangeError

    small = {"past_key_values": DsaCache.for_model(model, max_tokens=PROMPT + 2, batch_size=2)}
    with attached(model), pytest.raises(RangeError, match="max_tokens=92; wanted room for 2 requests of 93 tokens"):
        greedy(model, **LEFT_PADDED, **small)


def test_continuous_batching_is_refused(model):
    """transformers' own pages are not ours: it says that it does not know our attention."""
    with attached(model), pytest.raises((ValueError, NotSupported), match="dsa"):
        model.generate(TOKENS[:1], max_new_tokens=2, cache_implementation="paged")
