"""How transformers' models attend on our ops: short prompts densely, long ones sparsely, every way the same tokens."""

from __future__ import annotations

import logging

import pytest
import torch
from oracles.fake_quant import fake_quantised
from tiny_models import CONFIGS, NEW, PROMPT, TINY, UNQUANTISED, build, ours, prompt

from dsa_config import settings
from dsa_exec import record_calls
from dsa_exec.core.errors import UnsupportedPath
from dsa_exec.integrations.transformers import DsaCache, attached
from dsa_exec.integrations.transformers.greedy import agreement, continue_greedily

SHORT = 40
assert SHORT < TINY["index_topk"] < SHORT + NEW < PROMPT


@pytest.fixture(params=list(CONFIGS))
def model(request):
    return build(request.param)


def ops_called(run) -> dict[str, int]:
    """How often each op ran."""
    with record_calls() as trace:
        run()
    return {op: count for (op, _), (_, count) in trace.decisions.items()}


@pytest.mark.parametrize("seed", range(2))
def test_a_short_prompt_gives_the_tokens_of_plain_transformers(model, seed):
    """Dense until there are more tokens than are selected; then keys of the dense pass are scored like any other."""
    plain = continue_greedily(model, prompt(seed, SHORT), NEW)
    with settings.override(**UNQUANTISED):
        agreed = agreement(plain, ours(model, prompt(seed, SHORT)))
    assert (agreed.first_divergence, agreed.selected_in_common) == (None, None)
    assert agreed.largest_logit_difference < 1e-4


def test_a_short_prompt_in_fp8_gives_the_tokens_of_the_fake_quantised_oracle(model):
    """Tokens are attended to as the cache holds them, in a dense pass too."""
    with fake_quantised(model):
        oracle = continue_greedily(model, prompt(3, SHORT), NEW)
    agreed = agreement(oracle, ours(model, prompt(3, SHORT)))
    assert agreed.first_divergence is None
    assert agreed.largest_logit_difference < 1e-1


def test_a_dense_pass_stores_index_keys_and_selects_nothing(model):
    """One gather and one dense call a layer; no queries are scored, in layers that share a selection neither."""
    layers = len(model.model.layers)
    indexers = sum(getattr(layer.self_attn, "indexer", None) is not None for layer in model.model.layers)
    called = ops_called(lambda: ours(model, prompt(0, SHORT), 1))
    assert called == {
        "index_store": indexers,
        "kv_store": layers,
        "kv_gather": layers,
        "dense_mla_prefill": layers,
    }


def test_the_way_is_logged_on_demand(caplog):
    """debug_log_decisions tells each pass's way and the reason."""
    model = build("deepseek_v32")
    with caplog.at_level(logging.INFO, "dsa_exec.runtime"):
        ours(model, prompt(0, SHORT), 2)
        assert not [it for it in caplog.records if it.name == "dsa_exec.runtime"]
        with settings.override(debug_log_decisions=True):
            ours(model, prompt(0, SHORT), 2)
    told = [it.getMessage() for it in caplog.records if it.name == "dsa_exec.runtime"]
    assert told == [
        "prefill attends by dense (auto: all of the longest request's 40 tokens are attended to, none are selected)",
        "decode attends by fp8_kv (auto: decode reads the FP8 cache as it is)",
    ]


@pytest.mark.parametrize("formats", [UNQUANTISED, {}], ids=["model", "fp8"])
def test_dense_is_sparse_where_all_is_selected(model, formats):
    """Named or chosen, a short prompt gives the same tokens, and logits equal to rounding."""
    with settings.override(**formats):
        dense = ours(model, prompt(1, SHORT))
        with settings.override(prefill_attention="dense"):
            by_name = ours(model, prompt(1, SHORT))
        with settings.override(prefill_attention="sparse_bf16"):
            sparse = ours(model, prompt(1, SHORT))
    assert (dense.selections, by_name.selections) == ({}, {})
    assert sparse.selections
    assert dense.tokens == by_name.tokens == sparse.tokens
    torch.testing.assert_close(dense.logits, sparse.logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [SHORT, PROMPT])
@pytest.mark.parametrize(
    ("prefill", "decode"),
    [("sparse_bf16", "sparse_bf16"), ("fp8_kv", "fp8_kv"), ("flashmla_kv", "flashmla_sparse")],
)
def test_every_way_over_an_fp8_cache_gives_the_same(length, prefill, decode):
    """Whichever phase reads it and whichever gathers it, by our names or engines': the same tokens and selection."""
    model = build("deepseek_v32")
    chosen = ours(model, prompt(2, length), 4)
    with settings.override(prefill_attention=prefill, decode_attention=decode):
        named = ours(model, prompt(2, length), 4)
    assert named.tokens == chosen.tokens
    torch.testing.assert_close(named.logits, chosen.logits, atol=1e-3, rtol=1e-3)
    for layer, selected in chosen.selections.items():
        assert torch.equal(selected, named.selections[layer])


def test_a_batch_of_short_prompts_with_left_padding(model):
    """Padding sees nothing and is not seen in a dense pass either; the longest request decides."""
    tokens = torch.tensor([prompt(2, SHORT), prompt(3, SHORT)])
    mask = torch.ones_like(tokens)
    tokens[0, :17] = mask[0, :17] = 0
    plain = model.generate(tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
    with settings.override(**UNQUANTISED), attached(model):
        cache = DsaCache.for_model(model, max_tokens=SHORT + NEW, batch_size=2)
        with record_calls() as trace:
            got = model.generate(
                tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False, past_key_values=cache
            )
    assert torch.equal(plain, got)
    assert "dense_mla_prefill" in {op for op, _ in trace.decisions}


def test_a_prompt_in_parts_is_dense_until_it_is_long(model):
    """The first part attends densely, the next one selects among the keys of both."""
    tokens = torch.tensor([prompt(4)])
    with torch.no_grad(), settings.override(**UNQUANTISED):
        whole = model(tokens).logits
        with attached(model):
            cache = DsaCache.for_model(model, max_tokens=PROMPT)
            ways, logits = [], []
            for part in (tokens[:, :SHORT], tokens[:, SHORT:-1], tokens[:, -1:]):
                logits.append(model(part, past_key_values=cache).logits)
                ways.append((cache.requests._step.path.phase, cache.requests._step.path.way))
    assert ways == [("prefill", "dense"), ("prefill", "sparse_bf16"), ("decode", "sparse_bf16")]
    torch.testing.assert_close(torch.cat(logits, 1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("threshold", "is_dense"), [(0, False), (SHORT - 1, False), (SHORT, True), (2048, True)])
def test_the_threshold_counts_from_the_next_pass_on(model, threshold, is_dense):
    """Prompts of up to so many tokens are attended to densely; 0 turns it off."""
    with settings.override(prefill_dense_attn_kv_len_threshold=threshold):
        called = ops_called(lambda: ours(model, prompt(0, SHORT), 1))
    assert ("dense_mla_prefill" in called) is is_dense
    assert ("sparse_mla_prefill" in called) is not is_dense


def test_t37_what_the_model_selects_bounds_dense_attention(model):
    """T37: 60 tokens are far below the threshold, and more than the 48 that the model selects."""
    called = ops_called(lambda: ours(model, prompt(0, 60), 1))
    assert "dense_mla_prefill" not in called
    plain = continue_greedily(model, prompt(0, 60), 4)
    with settings.override(**UNQUANTISED):
        assert ours(model, prompt(0, 60), 4).tokens == plain.tokens


@pytest.mark.parametrize(
    ("named", "length", "words"),
    [
        ({"prefill_attention": "dense"}, PROMPT, "the longest request has 150 tokens, more than the 48 that the model"),
        ({"prefill_attention": "fp8_kv", **UNQUANTISED}, SHORT, "prefill_attention=fp8_kv: the MLA cache has format m"),
        ({"decode_attention": "fp8_kv", **UNQUANTISED}, SHORT, "decode_attention=fp8_kv: the MLA cache has format mod"),
    ],
)
def test_a_named_way_that_cannot_be_taken_is_an_error(named, length, words):
    """Before the pass writes anything, in a sentence, and no other way is taken instead."""
    model = build("deepseek_v32")
    with settings.override(**named), pytest.raises(UnsupportedPath, match=words), attached(model):
        cache = DsaCache.for_model(model, max_tokens=length + 2)
        try:
            continue_greedily(model, prompt(0, length), 2, cache=cache)
        finally:
            stored = length if "decode_attention" in named else 0
            assert [int(layer.mla.data.any(1).sum()) for layer in cache.layers] == [stored] * len(cache.layers)


def test_t33_a_pass_keeps_its_way_whatever_happens_meanwhile(model):
    """T33: between two layers of a dense pass another request decodes and the settings change; neither reaches it."""
    tokens = torch.tensor([prompt(1, SHORT)])
    with torch.no_grad(), attached(model):
        alone = model(tokens, past_key_values=DsaCache.for_model(model, max_tokens=SHORT)).logits
        mine, other = (DsaCache.for_model(model, max_tokens=PROMPT) for _ in range(2))
        model(torch.tensor([prompt(0)])[:, :-1], past_key_values=other)
        ways = []

        def interrupt(*_):
            handle.remove()
            settings.set(prefill_attention="sparse_bf16", prefill_dense_attn_kv_len_threshold=0)
            model(torch.tensor([prompt(0)])[:, -1:], past_key_values=other)
            ways.append((mine.requests._step.path.way, other.requests._step.path.phase))

        handle = model.model.layers[0].register_forward_hook(interrupt)
        with record_calls() as trace:
            got = model(tokens, past_key_values=mine).logits
    assert ways == [("dense", "decode")]
    assert torch.equal(got, alone)
    called = {op: count for (op, _), (_, count) in trace.decisions.items()}
    assert called["dense_mla_prefill"] == len(model.model.layers)
    assert "sparse_mla_prefill" not in called


def test_gradients_pass_a_dense_pass(model):
    """With nothing quantised, those of plain transformers, for all but the indexer."""
    tokens = torch.tensor([prompt(7, SHORT)])

    def gradients(**kwargs) -> dict[str, torch.Tensor]:
        model.zero_grad()
        model(tokens, labels=tokens, **kwargs).loss.backward()
        return {name: it.grad.clone() for name, it in model.named_parameters() if it.grad is not None}

    plain = gradients()
    with settings.override(**UNQUANTISED), attached(model), record_calls() as trace:
        got = gradients(past_key_values=DsaCache.for_model(model, max_tokens=SHORT))
    assert "dense_mla_prefill" in {op for op, _ in trace.decisions}
    assert got.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(got[name], gradient, atol=1e-5, rtol=1e-3)
