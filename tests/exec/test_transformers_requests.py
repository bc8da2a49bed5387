"""Pages and lengths of a cache's requests: growth, other batches, moves, passes that break off."""

from __future__ import annotations

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny_models import UNQUANTISED, build, prompt

from dsa_config import settings
from dsa_exec.core.checks import Arguments
from dsa_exec.core.errors import RangeError
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached
from dsa_exec.integrations.transformers.requests import PagedRequests


@functools.cache
def model_of(kind: str = "deepseek_v32"):
    return build(kind)


def tokens(length: int, batch: int = 1) -> torch.Tensor:
    return torch.tensor([prompt(seed, length) for seed in range(batch)])


def rows(cache: DsaCache, layer: int, request: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What a layer keeps of a request's tokens, in order: bytes of latents and of index keys."""
    pages = cache.page_table[request].long()
    mla, keys = cache.layers[layer].mla, cache.layers[layer].index_k
    return mla.data.unflatten(0, (-1, 64))[pages].flatten(0, 1)[:count], keys.data[pages]


def test_a_growing_cache_has_no_memory_until_it_is_used():
    """The first pass decides for how many requests; an eighth more than it needs is allocated, four pages at least."""
    cache = DsaCache.for_model(model_of())
    assert [layer.mla for layer in cache.layers] == [None, None]
    assert (cache.get_seq_length(), cache.max_tokens, cache.get_max_length(), cache.is_compileable) == (
        0,
        None,
        -1,
        False,
    )
    with torch.no_grad(), attached(model_of()):
        model_of()(tokens(100, 3), past_key_values=cache)
    assert cache.page_table.shape == (3, 2 + 4)
    assert cache.layers[1].mla.slots == 3 * 6 * 64
    assert cache.layers[0].batch_size == 3


def test_growth_keeps_every_token():
    """Pages are added when they are needed and no sooner; what was stored before stays, in the same slots."""
    model = model_of()
    with torch.no_grad(), attached(model):
        growing, fixed = DsaCache.for_model(model), DsaCache.for_model(model, max_tokens=900, batch_size=2)
        text = torch.randint(1, 256, (2, 700), generator=torch.Generator().manual_seed(0))
        sizes = []
        for part in (slice(0, 70), slice(70, 71), slice(71, 380), slice(380, 381), slice(381, 384), slice(384, 700)):
            for cache in (growing, fixed):
                model(text[:, part], past_key_values=cache)
            sizes.append(growing.page_table.shape[1])
    assert sizes == [6, 6, 6, 6, 6, 11 + 4]
    for layer in range(2):
        for request in range(2):
            mine, theirs = (rows(cache, layer, request, 700) for cache in (growing, fixed))
            assert torch.equal(mine[0], theirs[0])
            assert torch.equal(mine[1][:10], theirs[1][:10])


def test_a_reset_lets_another_batch_in():
    """A growing cache takes as many requests as come next; one of fixed size stays as it is."""
    model = model_of()
    with torch.no_grad(), attached(model):
        growing, fixed = DsaCache.for_model(model), DsaCache.for_model(model, max_tokens=90, batch_size=3)
        wanted = model(tokens(80, 5)).logits
        for cache in (growing, fixed):
            model(tokens(60, 3), past_key_values=cache)
            with pytest.raises(RangeError, match="was made for batch_size=3.*room for 5 requests of 140 tokens"):
                model(tokens(80, 5), past_key_values=cache)
            cache.reset()
        assert torch.equal(model(tokens(80, 5), past_key_values=growing).logits, wanted)
        with pytest.raises(RangeError, match="batch_size=3 and max_tokens=90; wanted room for 5 requests of 80"):
            model(tokens(80, 5), past_key_values=fixed)


@pytest.mark.parametrize("formats", [UNQUANTISED, {}], ids=["model", "fp8"])
@pytest.mark.parametrize("kind", ["deepseek_v32", "glm_moe_dsa"])
def test_requests_are_repeated_and_chosen(kind, formats):
    """Each request several times, then some of them in another order: they go on as those that they were."""
    model, text, more = model_of(kind), tokens(75, 2), tokens(3, 6)
    with torch.no_grad(), settings.override(**formats), attached(model):
        cache = DsaCache.for_model(model)
        model(text, past_key_values=cache)
        cache.batch_repeat_interleave(3)
        three = model(more, past_key_values=cache).logits
        wanted = model(torch.cat([text.repeat_interleave(3, 0), more], 1)).logits[:, -3:]
        torch.testing.assert_close(three, wanted, atol=1e-4, rtol=1e-4)
        chosen = torch.tensor([5, 0, 2])
        cache.batch_select_indices(chosen)
        got = model(more[:3], past_key_values=cache).logits
        whole = torch.cat([text.repeat_interleave(3, 0), more], 1)[chosen]
        wanted = model(torch.cat([whole, more[:3]], 1)).logits[:, -3:]
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert cache.get_seq_length() == 81


def test_a_cache_of_fixed_size_moves_requests_but_keeps_their_number():
    """Reordering is done in place; another number of requests is refused in words."""
    model, text = model_of(), tokens(70, 2)
    with torch.no_grad(), attached(model):
        cache = DsaCache.for_model(model, max_tokens=80, batch_size=2)
        cache.batch_repeat_interleave(2)  # of nothing
        model(text, past_key_values=cache)
        before = cache.layers[0].mla.data.data_ptr()
        cache.reorder_cache(torch.tensor([1, 1]))
        assert cache.layers[0].mla.data.data_ptr() == before
        assert torch.equal(rows(cache, 1, 0, 70)[0], rows(cache, 1, 1, 70)[0])
        for call in (
            lambda: cache.batch_repeat_interleave(2),
            lambda: cache.batch_select_indices(torch.tensor([0])),
        ):
            with pytest.raises(NotSupported, match=r"keeps its 2 requests, and [14] are wanted: DsaCache.for_model"):
                call()


def test_a_pass_that_broke_off_is_not_gone_on_from():
    """Layers would have different tokens. After a reset, or a crop to what all layers have, the cache is as new."""
    model, text = model_of(), tokens(80)
    with torch.no_grad(), attached(model):
        wanted = model(text).logits
        cache = DsaCache.for_model(model)
        first = model(text[:, :50], past_key_values=cache).logits
        handle = model.model.layers[0].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model(text[:, 50:], past_key_values=cache)
        handle.remove()
        assert cache.get_seq_length() == 50
        with pytest.raises(NotSupported, match="did not reach its last layer.*reset"):
            model(text[:, 50:], past_key_values=cache)
        cache.crop(0)
        rest = model(text[:, 50:], past_key_values=cache).logits
        torch.testing.assert_close(torch.cat([first, rest], 1), wanted, atol=1e-2, rtol=1e-2)
        cache.reset()
        torch.testing.assert_close(model(text, past_key_values=cache).logits, wanted)


HOST_READS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "numpy")


@pytest.mark.parametrize("fixed", [False, True])
def test_a_step_of_one_token_asks_nothing_of_the_device(monkeypatch, fixed):
    """With left padding too, no value is read: the host counts, and padding was seen before. A prefill reads once."""
    monkeypatch.setattr(Arguments, "values", lambda *_, **__: None)  # done on the CPU alone, as is the next
    monkeypatch.setattr(Arguments, "total", lambda _self, _lens, _name, given, **__: given)
    monkeypatch.setattr("dsa_exec.integrations.transformers.windows._check", lambda *_: None)
    monkeypatch.setattr("dsa_exec.integrations.transformers.step.require_same_padding", lambda *_: None)
    model = build("deepseek_v32", first_k_dense_replace=2)  # experts look at where their tokens are
    mask = torch.ones(2, 72, dtype=torch.bool)
    mask[1, :30] = False
    reads = []
    for name in HOST_READS:
        monkeypatch.setattr(torch.Tensor, name, noted(reads, name, getattr(torch.Tensor, name)))
    counts = []
    with torch.no_grad(), attached(model):
        cache = DsaCache.for_model(model, max_tokens=80 if fixed else None, batch_size=2 if fixed else None)
        for end, part in ((70, tokens(70, 2)), (71, tokens(1, 2)), (72, tokens(1, 2))):
            given = mask[:, :end]
            positions = (given.long().cumsum(1) - 1).clamp(min=0)[:, -part.shape[1] :]
            reads.clear()
            model(part, attention_mask=given, position_ids=positions, past_key_values=cache)
            counts.append(list(reads))
    assert counts == [["tolist"], [], []]


def noted(reads: list[str], name: str, function):
    def read(*args, **kwargs):
        reads.append(name)
        return function(*args, **kwargs)

    return read


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.lists(st.one_of(st.integers(1, 300), st.integers(-80, 0)), min_size=1, max_size=12), st.integers(1, 3))
def test_pages_are_enough_and_shared_by_none(changes, batch):
    """Whatever is added and cropped, each request has pages for its tokens, and no page belongs to two."""
    requests, seen = PagedRequests(index_topk=4), 0
    for change in changes:
        if change > 0:
            requests.make_room(batch, change, torch.device("cpu"))
            requests.advance(change, requests.pads)
        elif seen:
            requests.crop(change)
        seen = max(0, seen + change)
        assert requests.known_tokens() == requests.seen_tokens() == seen
        if seen:
            pages = requests.page_table.flatten().tolist()
            assert len(set(pages)) == len(pages) == requests.slots // 64
            assert requests.page_table.shape[0] == batch
            assert requests.page_capacity >= seen
