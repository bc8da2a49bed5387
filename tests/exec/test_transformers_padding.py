"""Padding is what the first passes said: later ones are held to it, and no token is written over another."""

from __future__ import annotations

import copy
import functools
import io

import pytest
import torch
from tiny_models import UNQUANTISED, build, prompt
from torch import nn
from transformers import StaticCache

from dsa_config import settings
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached

READ, PADS, ROOM = 70, 30, 128


@functools.cache
def model_of(kind: str) -> nn.Module:
    return build(kind)


@pytest.fixture(params=["deepseek_v32", "glm_moe_dsa"])
def model(request):
    with torch.no_grad(), settings.override(**UNQUANTISED), attached(model_of(request.param)):
        yield model_of(request.param)


@pytest.fixture
def one_model():
    model = model_of("deepseek_v32")
    with torch.no_grad(), settings.override(**UNQUANTISED), attached(model):
        yield model


def tokens(length: int, seed: int = 0, batch: int = 2) -> torch.Tensor:
    return torch.tensor([prompt(seed + request, length) for request in range(batch)])


def mask(width: int, *pads: int) -> torch.Tensor:
    """A row for each number of tokens of padding."""
    rows = torch.ones(len(pads), width, dtype=torch.long)
    for row, count in zip(rows, pads, strict=True):
        row[:count] = 0
    return rows


def empty(model, fixed: bool) -> DsaCache:
    return DsaCache.for_model(model, max_tokens=ROOM, batch_size=2) if fixed else DsaCache.for_model(model)


def filled(model, fixed: bool, *pads: int) -> DsaCache:
    """A cache in which two requests have READ tokens, so many of padding among them."""
    cache = empty(model, fixed)
    model(tokens(READ), attention_mask=mask(READ, *pads) if pads else None, past_key_values=cache)
    return cache


def goes_on(model, cache, count: int = 2, **options) -> torch.Tensor:
    """The logits of the next tokens, one at a time."""
    parts = tokens(count, seed=9, batch=cache.layers[0].batch_size).split(1, 1)
    return torch.cat([model(part, past_key_values=cache, **options).logits for part in parts], 1)


def kept(cache: DsaCache) -> list[torch.Tensor]:
    return [tensor for layer in cache.layers for tensor, _ in layer._tensors()]


fixed_or_not = pytest.mark.parametrize("fixed", [False, True], ids=["growing", "fixed"])


@fixed_or_not
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize(
    ("first", "later", "words"),
    [
        ((), (0, 30), "has 30 tokens of padding for request 1, and the passes before had 0"),
        ((0, 30), (0, 31), "has 31 tokens of padding for request 1, and the passes before had 30"),
        ((30, 0), (29, 0), "has 29 tokens of padding for request 0, and the passes before had 30"),
        ((0, 30), (0, 0), "has 0 tokens of padding for request 1, and the passes before had 30"),
    ],
)
def test_another_mask_than_before_is_refused(one_model, fixed, count, first, later, words):
    """Whoever masks tokens that are in the cache is told so before anything is written, and can go on without."""
    cache, other = filled(one_model, fixed, *first), filled(one_model, fixed, *first)
    before = [tensor.clone() for tensor in kept(cache)]
    with pytest.raises(NotSupported, match=f"attention_mask {words}: tokens in the cache cannot be masked later"):
        one_model(tokens(count, 3), attention_mask=mask(READ + count, *later), past_key_values=cache)
    for tensor, wanted in zip(kept(cache), before, strict=True):
        assert torch.equal(tensor, wanted)
    assert cache.get_seq_length() == READ
    assert torch.equal(goes_on(one_model, cache), goes_on(one_model, other))


@fixed_or_not
def test_a_mask_that_is_not_looked_at_overwrites_nothing(one_model, fixed, monkeypatch):
    """As in steps on an accelerator: the padding is what the cache remembers, whatever the mask says."""
    monkeypatch.setattr("dsa_exec.integrations.transformers.step.require_same_padding", lambda *_: None)
    cache, other = filled(one_model, fixed), filled(one_model, fixed)
    got = goes_on(one_model, cache, 1, attention_mask=mask(READ + 1, 0, PADS))
    assert torch.equal(got, goes_on(one_model, other, 1))
    for tensor, wanted in zip(kept(cache), kept(other), strict=True):
        assert torch.equal(tensor, wanted)
    assert torch.equal(goes_on(one_model, cache), goes_on(one_model, other))


@fixed_or_not
@pytest.mark.parametrize("count", [1, 5])
def test_no_mask_means_the_padding_that_there_was(model, fixed, count):
    """After a prefill with padding, tokens that come without a mask are after the others, as with a mask of ones."""
    with_mask, without = filled(model, fixed, 0, PADS), filled(model, fixed, 0, PADS)
    for start in (READ, READ + count):
        given = mask(start + count, 0, PADS)
        wanted = model(tokens(count, start), attention_mask=given, past_key_values=with_mask).logits
        assert torch.equal(model(tokens(count, start), past_key_values=without).logits, wanted)
    alone = model(torch.cat([tokens(READ), tokens(count, READ), tokens(count, READ + count)], 1)[1:, PADS:]).logits
    torch.testing.assert_close(wanted[1], alone[0, -count:], atol=1e-4, rtol=1e-4)


@fixed_or_not
def test_a_prompt_in_chunks_may_begin_with_padding_alone(model, fixed):
    """A request whose first chunks are all padding has its first token later; what was said of it until then counts."""
    text = tokens(READ)
    wanted = model(text, attention_mask=mask(READ, 0, 45)).logits[:, -5:]
    cache = empty(model, fixed)
    for start, end in ((0, 20), (20, 21), (21, 44), (44, 45), (45, 46), (46, READ)):
        out = model(text[:, start:end], attention_mask=mask(READ, 0, 45)[:, :end], past_key_values=cache)
    torch.testing.assert_close(out.logits[:, -5:], wanted, atol=1e-4, rtol=1e-4)
    cache = empty(model, fixed)
    model(text[:, :45], attention_mask=mask(READ, 0, 45), past_key_values=cache)  # which says more than is read
    out = model(text[:, 45:], past_key_values=cache)
    torch.testing.assert_close(out.logits[:, -5:], wanted, atol=1e-4, rtol=1e-4)
    cache = empty(model, fixed)
    model(text[:, :30], attention_mask=mask(30, 0, 30), past_key_values=cache)
    with pytest.raises(NotSupported, match="20 tokens of padding for request 1, and the passes before had 30"):
        model(text[:, 30:], attention_mask=mask(READ, 0, 20), past_key_values=cache)


def saved_and_loaded(cache: DsaCache) -> DsaCache:
    file = io.BytesIO()
    torch.save(cache, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@fixed_or_not
@pytest.mark.parametrize("copied", [copy.deepcopy, saved_and_loaded])
def test_a_copy_has_the_padding(one_model, fixed, copied):
    """A copy goes on without a mask as its original does, each on its own."""
    cache = filled(one_model, fixed, 0, PADS)
    other = copied(cache)
    wanted = goes_on(one_model, cache, attention_mask=None)
    assert torch.equal(goes_on(one_model, other), wanted)
    with pytest.raises(NotSupported, match="passes before had 30"):
        one_model(tokens(3), attention_mask=mask(READ + 5, 0, 0), past_key_values=other)


@fixed_or_not
def test_a_crop_keeps_the_padding_of_what_stays(one_model, fixed):
    """Also a crop within the padding of a request, which has had no token then."""
    cache, text = filled(one_model, fixed, 0, PADS), tokens(READ)
    wanted = goes_on(one_model, copy.deepcopy(cache))
    cache.crop(-10)
    one_model(text[:, -10:], past_key_values=cache)
    torch.testing.assert_close(goes_on(one_model, cache), wanted, atol=1e-4, rtol=1e-4)
    cache.crop(20)
    one_model(text[:, 20:], attention_mask=mask(READ, 0, PADS), past_key_values=cache)
    torch.testing.assert_close(goes_on(one_model, cache), wanted, atol=1e-4, rtol=1e-4)
    cache.crop(20)
    one_model(text[:, 20:], past_key_values=cache)
    alone = one_model(torch.cat([text, tokens(2, 9)], 1)[1:, 20:]).logits[:, -2:]
    torch.testing.assert_close(goes_on(one_model, cache)[1:], alone, atol=1e-4, rtol=1e-4)


@fixed_or_not
def test_a_reset_forgets_the_padding(one_model, fixed):
    """Other padding, or none, is right then."""
    cache = filled(one_model, fixed, 0, PADS)
    for pads in ((), (12, 3)):
        cache.reset()
        one_model(tokens(READ), attention_mask=mask(READ, *pads) if pads else None, past_key_values=cache)
        assert torch.equal(goes_on(one_model, cache), goes_on(one_model, filled(one_model, fixed, *pads)))


@fixed_or_not
def test_requests_move_with_their_padding(one_model, fixed):
    """Reordered, and in a growing cache repeated and selected: each goes on as the one that it was."""
    cache, read = filled(one_model, fixed, 5, PADS), tokens(READ)
    moves = [(lambda: cache.reorder_cache(torch.tensor([1, 0])), [1, 0])]
    if not fixed:
        moves.append((lambda: cache.batch_repeat_interleave(2), [1, 1, 0, 0]))
        moves.append((lambda: cache.batch_select_indices(torch.tensor([3, 0])), [0, 1]))
    for move, requests in moves:
        move()
        got = goes_on(one_model, copy.deepcopy(cache))
        new = tokens(2, 9, len(requests))
        for row, request in enumerate(requests):
            text = torch.cat([read[request, (5, PADS)[request] :], new[row]])
            wanted = one_model(text[None]).logits[0, -2:]
            torch.testing.assert_close(got[row], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["growing", "static"])
def test_a_second_turn_of_generate_has_the_mask_of_the_first(one_model, kind):
    """Another is refused before anything is written; with the right one the tokens are those of one prompt."""
    options = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    cache = empty(one_model, False) if kind == "growing" else StaticCache(one_model.config, max_cache_len=ROOM)
    text, first = tokens(READ), mask(READ, 0, PADS)
    text[1, :PADS] = 0
    said = one_model.generate(text, attention_mask=first, past_key_values=cache, **options)
    text = torch.cat([said, tokens(8, 5)], 1)
    with pytest.raises(NotSupported, match="has 33 tokens of padding for request 1, and the passes before had 30"):
        other = mask(text.shape[1], 0, PADS + 3)
        one_model.generate(text, attention_mask=other, past_key_values=cache, **options)
    whole = mask(text.shape[1], 0, PADS)
    wanted = one_model.generate(text, attention_mask=whole, **options)
    assert torch.equal(one_model.generate(text, attention_mask=whole, past_key_values=cache, **options), wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@fixed_or_not
def test_on_a_device_passes_of_several_tokens_are_held_to_the_padding(fixed):
    """Those wait for the device anyway. Steps of one token do not look, and go by what the cache remembers."""
    model = build("deepseek_v32").to("cuda")
    with torch.no_grad(), attached(model):
        cache, other = empty(model, fixed), empty(model, fixed)
        for it in (cache, other):
            model(tokens(READ).cuda(), attention_mask=mask(READ, 0, PADS).cuda(), past_key_values=it)
        with pytest.raises(NotSupported, match="31 tokens of padding for request 1, and the passes before had 30"):
            model(tokens(5).cuda(), attention_mask=mask(READ + 5, 0, 31).cuda(), past_key_values=cache)
        one, later = tokens(1).cuda(), mask(READ + 1, 0, 31).cuda()
        with settings.override(debug_check_indices=True), pytest.raises(NotSupported, match="31 tokens of padding"):
            model(one, attention_mask=later, past_key_values=cache)
        got = model(one, attention_mask=later, past_key_values=cache).logits
        torch.testing.assert_close(got, model(one, past_key_values=other).logits)
