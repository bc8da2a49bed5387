"""Prompts continued together: padding, different lengths, forced tokens, and what an interrupt leaves."""

from __future__ import annotations

import pytest
import torch
from tiny_models import UNQUANTISED, build, prompt

from dsa_config import settings
from dsa_exec.core.errors import RangeError
from dsa_exec.integrations.transformers import DsaCache, attached
from dsa_exec.integrations.transformers.agreement import agreement
from dsa_exec.integrations.transformers.continuation import Generation
from dsa_exec.integrations.transformers.greedy import continue_greedily
from dsa_exec.integrations.transformers.sampling import Sampling

LENGTHS, WANTED = (120, 70, 7), (3, 6, 5)


@pytest.fixture(scope="module", params=["deepseek_v32", "glm_moe_dsa"])
def model(request):
    return build(request.param)


def together(model, prompts, wanted, **options) -> Generation:
    with attached(model):
        room = max(map(len, prompts)) + max(wanted)
        cache = DsaCache.for_model(model, max_tokens=room, batch_size=len(prompts))
        generation = Generation(model, prompts, wanted, cache=cache, **options)
        generation.run()
    return generation


def test_a_batch_is_its_prompts_alone(model):
    """Each has its own number of tokens, those of plain transformers, and selects the same in each row of its own."""
    prompts = [prompt(seed, length) for seed, length in enumerate(LENGTHS)]
    with settings.override(**UNQUANTISED):
        made = together(model, prompts, WANTED)
    for request, (tokens, wanted) in enumerate(zip(prompts, WANTED, strict=True)):
        plain = continue_greedily(model, tokens, wanted)
        found = agreement(plain, made[request])
        assert made[request].tokens == plain.tokens
        assert found.selected_in_common == 1.0
        assert found.largest_logit_difference < 1e-3
        assert made.is_done(request)


def test_prompts_of_one_length_need_no_mask(model):
    """Then nothing is padded, and the result is the same."""
    prompts = [prompt(seed, 60) for seed in (3, 4)]
    with settings.override(**UNQUANTISED):
        made = together(model, prompts, (4, 4))
    assert [made[it].tokens for it in (0, 1)] == [continue_greedily(model, it, 4).tokens for it in prompts]


def test_an_end_token_ends_one_prompt_of_a_batch(model, monkeypatch):
    """The others go on; the one that ended says so and has no further token."""
    prompts = [prompt(seed, 60) for seed in (3, 4)]
    with settings.override(**UNQUANTISED):
        free = together(model, prompts, (6, 6))
        ends = free[0].tokens[2]
        monkeypatch.setattr(model.generation_config, "eos_token_id", ends)
        made = together(model, prompts, (6, 6))
    for request in (0, 1):
        tokens = free[request].tokens
        stop = tokens.index(ends) + 1 if ends in tokens else 6
        assert made[request].tokens == tokens[:stop]
        assert made[request].ended is (ends in tokens)


def test_forced_tokens_are_read_and_not_chosen(model):
    """Logits are those of the forced text; tokens what would have been chosen; an end token among them ends nothing."""
    tokens, forced = prompt(5, 60), prompt(6, 4)
    plain = Generation(model, [tokens], [99], forced=[forced])
    plain.run()
    assert len(plain[0].tokens) == 4
    for step in range(4):
        alone = continue_greedily(model, tokens + forced[:step], 1)
        assert torch.allclose(plain[0].logits[step], alone.logits[0], atol=1e-3)
        assert plain[0].tokens[step] == alone.tokens[0]


def test_the_same_noise_chooses_the_same_tokens(model):
    """A forced run over tokens that were drawn draws them again, with a chooser of the same seed and request."""
    tokens, sampling = prompt(7, 60), Sampling(1.5, seed=4)
    first = Generation(model, [tokens], [8], choose=[sampling.chooser(2)])
    first.run()
    again = Generation(model, [tokens], [8], choose=[sampling.chooser(2)], forced=[first[0].tokens])
    again.run()
    assert again[0].tokens == first[0].tokens
    assert len(set(first[0].tokens)) > 3
    assert agreement(again[0], first[0], forced=True).largest_logit_difference < 1e-3


def test_a_forced_comparison_counts_all_steps(model):
    """Both have read the same in each, also after a token that differs."""
    tokens = prompt(8, 60)
    drawn = Generation(model, [tokens], [6], choose=[Sampling(5.0).chooser()])
    drawn.run()
    likeliest = Generation(model, [tokens], [6], forced=[drawn[0].tokens])
    likeliest.run()
    changed = drawn[0]
    changed.logits[5] += 100
    assert agreement(likeliest[0], changed, forced=True).largest_logit_difference == pytest.approx(100, abs=1)
    assert agreement(likeliest[0], changed).largest_logit_difference < 1e-3


def test_an_interrupt_leaves_what_there_is(model):
    """Tokens, logits and times until then; nothing at all before the first."""
    generation = Generation(model, [prompt(9, 60)], [10])
    assert (generation[0].tokens, generation[0].prefill_s, generation[0].decode_s) == ([], 0.0, 0.0)
    assert generation[0].logits.shape == (0, model.config.vocab_size)

    def interrupt(_: int) -> None:
        if len(generation.tokens[0]) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generation.run(interrupt)
    assert len(generation[0].tokens) == len(generation[0].logits) == 4
    assert generation[0].prefill_s > 0
    assert generation[0].decode_s > 0
    assert not generation.is_done(0)


def test_without_a_record_nothing_is_kept(model):
    """Tokens are the same; logits and selections are not there."""
    tokens = prompt(10, 60)
    kept, bare = (Generation(model, [tokens], [3], record=record) for record in (True, False))
    kept.run()
    bare.run()
    assert bare[0].tokens == kept[0].tokens
    assert (len(bare[0].logits), bare[0].selections) == (0, {})
    assert kept[0].selections


@pytest.mark.parametrize(
    ("prompts", "wanted", "words"),
    [([], [], "prompt is empty"), ([[1], []], [1, 1], "prompt is empty"), ([[1]], [0], "max_new_tokens is 0")],
)
def test_nothing_to_do_is_refused(prompts, wanted, words):
    """No prompt, one without a token, or no token wanted."""
    with pytest.raises(RangeError, match=words):
        Generation(build("deepseek_v32"), prompts, wanted)
