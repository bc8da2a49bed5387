"""What a cache is given that it is not made for: passes of other models, masks of other shapes, wrong numbers."""

from __future__ import annotations

import functools
import re

import pytest
import torch
from tiny_models import UNQUANTISED, build, prompt
from torch import nn
from transformers import DynamicCache

from dsa_config import settings
from dsa_exec.core.errors import DtypeError, RangeError, ShapeError
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached


@functools.cache
def model_of(kind: str = "deepseek_v32", **changes) -> nn.Module:
    return build(kind, **changes)


def tokens(length: int, batch: int = 1) -> torch.Tensor:
    return torch.tensor([prompt(seed, length) for seed in range(batch)])


@pytest.fixture
def model():
    with torch.no_grad(), attached(model_of()):
        yield model_of()


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("glm_moe_dsa", {}, "model_type='glm_moe_dsa', and this one has 'deepseek_v32'"),
        ("deepseek_v32", {"num_hidden_layers": 1}, "num_hidden_layers=1, and this one has 2"),
        ("deepseek_v32", {"num_hidden_layers": 3}, "num_hidden_layers=3, and this one has 2"),
        ("deepseek_v32", {"kv_lora_rank": 256}, "kv_lora_rank=256, and this one has 512"),
        ("deepseek_v32", {"index_topk": 16}, "index_topk=16, and this one has 48"),
    ],
)
@pytest.mark.parametrize("room", [None, 64], ids=["growing", "fixed"])
def test_a_cache_of_another_model_is_refused(model, kind, changes, words, room):
    """Before its first layer is written, in one sentence that names what differs."""
    cache = DsaCache.for_model(model_of(kind, **changes), max_tokens=room)
    for _ in range(2):
        with pytest.raises(NotSupported, match=f"^past_key_values was made for a model with {words}: pass DsaCache"):
            model(tokens(20), past_key_values=cache)
    assert cache.get_seq_length() == 0


def test_a_cache_of_layers_that_select_otherwise_is_refused():
    """GLM's layers that share a selection have no index keys: a cache fits one pattern of them."""
    patterns = (["full", "full"], ["full", "shared"])
    one, other = (build("glm_moe_dsa", num_hidden_layers=2, indexer_types=it) for it in patterns)
    words = re.escape("indexer_types=('full', 'full'), and this one has ('full', 'shared')")
    with torch.no_grad(), attached(one), attached(other):
        cache = DsaCache.for_model(one)
        one(tokens(20), past_key_values=cache)
        with pytest.raises(NotSupported, match=words):
            other(tokens(20), past_key_values=cache)


def test_a_cache_of_transformers_that_one_model_has_used_is_not_another_s(model):
    """Ours are in it from the first pass on."""
    other, cache = model_of(index_topk=16), DynamicCache()
    model(tokens(20), past_key_values=cache)
    with attached(other), pytest.raises(NotSupported, match="index_topk=48, and this one has 16"):
        other(tokens(20), past_key_values=cache)
    assert model(tokens(20), past_key_values=cache).logits.isfinite().all()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("deepseek_v32", "model is 'deepseek_v32'"),
        (None, "model is of the class NoneType"),
        (nn.Linear, "model is the class Linear"),
        (nn.Sequential(nn.Linear(2, 2)), "model is of the class Sequential"),
    ],
)
def test_a_cache_is_made_for_a_model(target, words):
    """Not for a word, a class, or a module that has no configuration."""
    with pytest.raises(NotSupported, match=f"^{words}: DsaCache.for_model takes a model of transformers"):
        DsaCache.for_model(target)


@pytest.mark.parametrize("wrong", ["no", 1, None])
def test_hadamard_is_true_or_false(wrong):
    """A word is not taken for yes."""
    with pytest.raises(DtypeError, match=f"DsaCache.for_model: hadamard is {type(wrong).__name__}; wanted bool"):
        DsaCache.for_model(model_of(), hadamard=wrong)


def test_keys_that_are_not_quantised_are_not_rotated(model):
    """It would change nothing: refused when the cache is allocated, beforehand or by its first pass."""
    words = "hadamard=True rotates index keys to quantise them, and index_k_format=model does not"
    with settings.override(**UNQUANTISED):
        with pytest.raises(NotSupported, match=words):
            DsaCache.for_model(model, max_tokens=8, hadamard=True)
        growing = DsaCache.for_model(model, hadamard=True)
        with pytest.raises(NotSupported, match=words):
            model(tokens(8), past_key_values=growing)
    assert model(tokens(8), past_key_values=growing).logits.isfinite().all()
    assert growing.layers[0].index_k.layout.hadamard


@pytest.mark.parametrize("shape", [(2, 20), (20,), (1, 20, 20)])
def test_a_mask_has_a_row_for_each_request(model, shape):
    """Another batch size, and masks of rows by keys, are named by their shapes."""
    words = re.escape(f"attention_mask has shape {list(shape)}; wanted [1, tokens], a row for each request")
    with pytest.raises(ShapeError, match=words):
        model(tokens(20), attention_mask=torch.ones(shape), past_key_values=DsaCache.for_model(model))


def test_pages_are_there_after_the_first_pass(model):
    """Until then a cache that grows has none, and says so."""
    cache = DsaCache.for_model(model)
    for name in ("page_table", "index_page_table"):
        with pytest.raises(NotSupported, match="a cache that grows has no pages before its first pass"):
            getattr(cache, name)
    model(tokens(8), past_key_values=cache)
    assert cache.page_table.shape == cache.index_page_table.shape == (1, 5)


@pytest.mark.parametrize("wrong", [2.5, "3", None, True])
def test_tokens_are_cropped_in_whole_numbers(model, wrong):
    """What is no integer is refused, and the cache stays as it is. A number of the device is one."""
    cache = DsaCache.for_model(model)
    model(tokens(8), past_key_values=cache)
    with pytest.raises(RangeError, match=re.escape(f"DsaCache.crop: tokens_to_remove is {wrong!r}; wanted an integer")):
        cache.crop(wrong)
    assert cache.get_seq_length() == 8
    cache.crop(torch.tensor(-3))
    assert cache.get_seq_length() == 5


@pytest.mark.parametrize("wrong", [0, -1, 2.5])
def test_requests_are_repeated_at_least_once(model, wrong):
    """No cache without requests is left over."""
    cache = DsaCache.for_model(model)
    model(tokens(8), past_key_values=cache)
    with pytest.raises(RangeError, match=f"batch_repeat_interleave: repeats is {wrong}; wanted an integer of at least"):
        cache.batch_repeat_interleave(wrong)
    with pytest.raises(RangeError, match="indices name no request; wanted one request at least"):
        cache.batch_select_indices(torch.tensor([], dtype=torch.long))
    assert cache.page_table.shape[0] == 1
