"""What changes after a step was compiled: masks, padding, and a model that is no longer what it was."""

from __future__ import annotations

import functools
import types

import pytest
import torch
from changed_layers import Adapter, hooked, hooked_before, replaced
from tiny_models import UNQUANTISED, build, prompt
from torch import nn
from torch._dynamo.utils import counters

from dsa_config import settings
from dsa_exec.integrations.transformers import DsaCache, NotSupported, attached

READ, PADS, ROOM = 70, 30, 90


@functools.cache
def base() -> nn.Module:
    """Without experts, which on the CPU look at where their tokens are: no part of a graph."""
    return build("deepseek_v32", first_k_dense_replace=2)


@pytest.fixture
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def model(fresh):
    with torch.no_grad(), settings.override(**UNQUANTISED), attached(base()):
        yield base()


def tokens(length: int, seed: int = 0) -> torch.Tensor:
    return torch.tensor([prompt(seed + request, length) for request in range(2)])


def mask(width: int, pads: int) -> torch.Tensor:
    """The second of two requests is padded."""
    rows = torch.ones(2, width, dtype=torch.long)
    rows[1, :pads] = 0
    return rows


def filled(model, pads: int, length: int = READ) -> DsaCache:
    cache = DsaCache.for_model(model, max_tokens=ROOM, batch_size=2)
    model(tokens(length), attention_mask=mask(length, pads), past_key_values=cache)
    return cache


def compiled(model, **options):
    return torch.compile(model.forward, **{"backend": "aot_eager", "fullgraph": True, **options})


def steps(step, cache, **options) -> torch.Tensor:
    """Logits of three steps of one token each."""
    return torch.cat([step(part, past_key_values=cache, **options).logits for part in tokens(3, 9).split(1, 1)], 1)


@pytest.mark.parametrize("later", [None, mask(READ + 3, 0), mask(READ + 3, PADS + 5)], ids=["no", "ones", "other"])
def test_a_compiled_step_has_the_padding_that_the_cache_remembers(model, later):
    """It does not look at the mask: tokens are where eager steps have them, and the padding stays what it was."""
    first, second = filled(model, PADS), filled(model, PADS)
    wanted = steps(model, first)
    assert torch.equal(steps(compiled(model), second, attention_mask=later), wanted)
    assert second.requests.pads.tolist() == [0, PADS]
    assert torch.equal(steps(model, second), steps(model, first))


def test_padding_in_compiled_steps_counts_until_the_first_token(model):
    """A request that had nothing but padding has more of it in a compiled step, and then its first token."""
    first, second = filled(model, PADS, PADS), filled(model, PADS, PADS)
    given = mask(PADS + 3, PADS + 1)
    wanted = steps(model, first, attention_mask=given)
    got = steps(compiled(model), second, attention_mask=given)
    assert second.requests.pads.tolist() == first.requests.pads.tolist() == [0, PADS + 1]
    assert torch.equal(got, wanted)
    alone = model(tokens(3, 9)[1:, 1:]).logits
    torch.testing.assert_close(got[1:, 1:], alone, atol=1e-4, rtol=1e-4)


def adapted(attention) -> None:
    weight = attention.kv_b_proj.weight
    attention.kv_b_proj = Adapter(weight.shape[1], weight.shape[0], bias=False)
    attention.kv_b_proj.weight = weight


def bound(attention) -> None:
    attention.kv_b_proj.forward = types.MethodType(lambda _, hidden: hidden, attention.kv_b_proj)


def biased(attention) -> None:
    attention.kv_b_proj.bias = nn.Parameter(torch.zeros(attention.kv_b_proj.out_features))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (adapted, "kv_b_proj is a Adapter, not a plain Linear"),
        (hooked, "kv_b_proj has a hook"),
        (hooked_before, "kv_b_proj has a hook"),
        (replaced, "kv_b_proj has a hook"),
        (bound, "kv_b_proj has a hook"),
        (biased, "kv_b_proj has a bias"),
    ],
)
def test_an_adapter_after_a_compiled_step_is_seen(fresh, change, words):
    """It would silently have no effect. Hooks are seen where torch is set to see those of any compiled module."""
    model = build("deepseek_v32", first_k_dense_replace=2, num_hidden_layers=1)
    guarded = torch._dynamo.config.patch(skip_nnmodule_hook_guards=False)
    with torch.no_grad(), attached(model), guarded:
        cache, step = filled(model, 0), compiled(model, fullgraph=False)
        steps(step, cache)
        change(model.model.layers[0].self_attn)
        with pytest.raises(NotSupported, match=words):
            steps(step, cache)


def test_an_adapter_in_one_graph_is_torch_s_error(fresh):
    """Where no graph may break, torch tells what was raised in words of its own, and ours are among them."""
    model = build("deepseek_v32", first_k_dense_replace=2, num_hidden_layers=1)
    with torch.no_grad(), attached(model):
        cache, step = filled(model, 0), compiled(model)
        steps(step, cache)
        adapted(model.model.layers[0].self_attn)
        with pytest.raises(torch._dynamo.exc.Unsupported, match="kv_b_proj is a Adapter, not a plain Linear"):
            steps(step, cache)


def test_an_adapter_before_the_first_pass_of_a_step_is_seen(fresh):
    """A cache of fixed size is allocated without a pass, so that a compiled step may be the first to look."""
    model = build("deepseek_v32", first_k_dense_replace=2, num_hidden_layers=1)
    with torch.no_grad(), attached(model):
        cache = DsaCache.for_model(model, max_tokens=ROOM, batch_size=2)
        adapted(model.model.layers[0].self_attn)
        with pytest.raises(NotSupported, match="kv_b_proj is a Adapter"):
            steps(compiled(model, fullgraph=False), cache)
