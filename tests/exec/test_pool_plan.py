"""From memory to tokens: published numbers, and that a plan is exact: it fits, and one page more would not."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from model_configs import DEEPSEEK_V4_FLASH, DEEPSEEK_V32, GLM_5, V4_RATIOS, with_layers
from oracles.pool_bytes import mla_bytes, pages_of_a_run, published_bytes_per_token, swa_of, v4_bytes

from dsa_exec.core.errors import PlanError
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_pools import plan_pools
from dsa_exec.memory.plan_world import World
from dsa_exec.memory.pools_v4_state import estimated_requests

GIB = 2**30
V32 = geometry_of(DEEPSEEK_V32, "v32/config.json")
GLM = geometry_of(GLM_5, "glm/config.json")
V4 = geometry_of(DEEPSEEK_V4_FLASH, "v4/config.json")
V4_44 = geometry_of({**DEEPSEEK_V4_FLASH, "num_hidden_layers": 44, "num_nextn_predict_layers": 0}, "v4/config.json")

ratios = st.fractions(min_value=Fraction(1, 20), max_value=1, max_denominator=100)


def rank_of(geometry, memory=40 * GIB, **options):
    return plan_pools(geometry, World(), memory, PlanOptions(**options)).ranks[0]


@pytest.mark.parametrize(("kv", "token_bytes"), [("fp8", 656), ("bf16", 1152), ("fp8-raw", 576)])
def test_the_mla_cell(kv, token_bytes):
    """A token takes 656, 1152 or 576 bytes a layer and 132 of index keys: 48068 with 61 layers packed."""
    rank = rank_of(V32, kv=kv)
    assert {pool.name: pool.bytes_per_token for pool in rank.pools} == {"mla_kv": token_bytes * 61, "index_k": 132 * 61}
    assert rank.bytes_per_token == (token_bytes + 132) * 61
    assert kv != "fp8" or rank.bytes_per_token == 48068


def test_shared_indexers_have_no_index_keys():
    """Index keys are counted for layers with an indexer of their own: GLM with every fourth of 78 layers, after two."""
    shared = geometry_of({**GLM_5, "index_topk_freq": 4}, "glm/config.json")
    rank = rank_of(shared)
    own = [layer for layer in range(78) if shared.own_indexers[layer]]
    assert rank.pool("index_k").layers == tuple(own)
    assert rank.bytes_per_token == 656 * 78 + 132 * len(own) < rank_of(GLM).bytes_per_token


@pytest.mark.parametrize(
    ("geometry", "options", "value"),
    [
        (V4, {}, 7705.45),
        (V4_44, {}, 7763.85),
        (V4, {"swa_full_tokens_ratio": 0.8, "draft_tokens": 4, "draft_layers": 0}, 45443.85),
    ],
)
def test_published_v4_bytes_per_token(geometry, options, value):
    """The formula's published results, each rounded up once where an integer is wanted."""
    rank = rank_of(geometry, **options)
    assert rank.exact_bytes_per_token == Fraction(str(value))
    assert rank.bytes_per_token == int(value) + 1
    assert all(pool.bytes_per_token - 1 < pool.exact_bytes_per_token <= pool.bytes_per_token for pool in rank.pools)


def test_published_v4_share_of_a_layer():
    """45443.85 bytes over 43 layers are the 1056.8 that the ancestor reserves for a draft layer."""
    rank = rank_of(V4, swa_full_tokens_ratio="0.8", draft_tokens=4, draft_layers=0)
    assert float(rank.exact_bytes_per_token / 43) == pytest.approx(1056.8, abs=0.05)


def test_published_v4_pool_sizes():
    """32768 tokens in pages of 256 at a ratio of 0.1: 3072 of the window, 8192, 256, and 192 rows of state."""
    rank = rank_of(V4, max_tokens=32768, max_running_requests=64)
    assert rank.tokens == 32768
    tokens = {pool.name: pool.tokens for pool in rank.pools}
    assert tokens == {
        "swa_kv": 3072,
        "c4_kv": 8192,
        "c128_kv": 256,
        "c4_index_k": 8192,
        "c4_state": 192,
        "c4_index_state": 192,
        "c128_state": 65 * 128,
    }
    pages = {pool.name: (pool.page_tokens, pool.pages) for pool in rank.pools}
    assert pages["swa_kv"] == (128, 25)
    assert pages["c4_kv"] == pages["c4_index_k"] == (64, 129)
    assert pages["c128_kv"] == (2, 129)
    assert pages["c4_state"] == pages["c4_index_state"] == (8, 25)
    assert pages["c128_state"] == (128, 67)


@examples(deadline=None)
@given(
    config=st.sampled_from([DEEPSEEK_V32, GLM_5]),
    layers=st.integers(1, 80),
    page=st.integers(1, 512),
    kv=st.sampled_from([("fp8", 656), ("bf16", 1152), ("fp8-raw", 576)]),
    memory=st.integers(10**6, 10**12),
)
def test_an_mla_plan_is_the_largest_that_fits(config, layers, page, kv, memory):
    """Bytes are as counted page by page, never more than the memory, and with one page more they would be."""
    geometry, (format, token_bytes) = geometry_of({**config, "num_hidden_layers": layers}, "c"), kv
    assume(mla_bytes(token_bytes, layers, layers, page, page) <= memory)
    plan = plan_pools(geometry, World(), memory, PlanOptions(kv=format, page_tokens=page))
    [rank] = plan.ranks
    assert plan.tokens % page == 0
    assert rank.bytes == mla_bytes(token_bytes, layers, layers, plan.tokens, page) <= memory
    assert mla_bytes(token_bytes, layers, layers, plan.tokens + page, page) > memory
    assert rank.free_bytes == memory - rank.bytes
    assert rank.fixed_bytes == mla_bytes(token_bytes, layers, layers, 0, page)
    assert rank.padding_bytes == 0


@examples(deadline=None)
@given(
    layers=st.integers(1, 43),
    pages=st.integers(1, 4),
    ratio=ratios,
    requests=st.integers(1, 5000),
    draft_tokens=st.integers(0, 10),
    memory=st.integers(10**8, 10**12),
)
def test_a_v4_plan_is_the_largest_that_fits(layers, pages, ratio, requests, draft_tokens, memory):
    """Bytes with padding, extra pages and states are as counted page by page, fit, and with a page more would not."""
    geometry, page = geometry_of(with_layers(DEEPSEEK_V4_FLASH, layers), "c"), 128 * pages

    def counted(tokens):
        sizes = {"page": page, "ratio": ratio, "speculative": draft_tokens > 0, "requests": requests}
        return v4_bytes(V4_RATIOS[:layers], tokens, **sizes)

    options = {"page_tokens": page, "swa_full_tokens_ratio": ratio, "max_running_requests": requests}
    options = PlanOptions(**options, draft_tokens=draft_tokens, draft_layers=0)
    try:
        plan = plan_pools(geometry, World(), memory, options)
    except PlanError:
        needed = pages_of_a_run(127 + max(1, draft_tokens), page) * page
        admitted = next(tokens for tokens in range(page, 10**6, page) if swa_of(tokens, ratio, page) >= needed)
        assert counted(admitted) > memory
        return
    [rank] = plan.ranks
    assert plan.tokens % page == 0
    assert rank.bytes == counted(plan.tokens) <= memory
    assert counted(plan.tokens + page) > memory
    ring = 16 if draft_tokens else 8
    assert rank.exact_bytes_per_token == published_bytes_per_token(V4_RATIOS[:layers], ratio, ring)


@examples(deadline=None)
@given(
    model=st.sampled_from([V32, GLM, V4]),
    memory=st.integers(8 * GIB, 500 * GIB),
    more=st.integers(0, 10**9),
    pp=st.integers(1, 6),
    known=st.booleans(),
)
def test_more_memory_never_gives_fewer_tokens(model, memory, more, pp, known):
    """Tokens grow with memory, also where the number of requests is estimated from the tokens; bytes always fit."""
    options = PlanOptions(max_running_requests=128 if known else None)
    memory += 60 * GIB * (model is V4 and not known)
    less, much = (plan_pools(model, World(pp=pp), bytes, options) for bytes in (memory, memory + more))
    assert less.tokens <= much.tokens
    for plan in (less, much):
        assert all(rank.bytes <= rank.memory_bytes for rank in plan.ranks)


def test_a_limit_on_tokens_holds_in_whole_pages():
    """`max_tokens` is an upper limit, rounded down to pages, and no goal: memory can be the tighter limit."""
    assert rank_of(V32, max_tokens=1000).tokens == 960
    free = rank_of(V32).tokens
    assert rank_of(V32, max_tokens=free + 64).tokens == rank_of(V32, max_tokens=free).tokens == free


def test_formats_of_v4():
    """fp8 584 bytes in padded pages, bf16 1024 and raw fp8 512 unpadded; keys of 132 bytes or 68; states in bf16."""
    for kv, token_bytes, padding in (("fp8", 584, 128), ("bf16", 1024, 0), ("fp8-raw", 512, 0)):
        pool = rank_of(V4, kv=kv).pool("swa_kv")
        assert (pool.entry_bytes, pool.page_bytes) == (token_bytes, 128 * token_bytes + padding)
    assert rank_of(V4, index_k="fp4").pool("c4_index_k").page_bytes == 64 * 68
    half = rank_of(V4, c4_state_bytes=2, c128_state_bytes=2)
    assert half.pool("c4_state").entry_bytes == 4 * 512 * 2
    assert half.pool("c4_index_state").entry_bytes == 4 * 128 * 2
    assert half.pool("c128_state").entry_bytes == 2 * 512 * 2


def test_pages_follow_the_window():
    """Pages of context hold whole windows: with a window of 96, a multiple of 384 by default and when asked for."""
    geometry = geometry_of({**DEEPSEEK_V4_FLASH, "sliding_window": 96}, "c")
    plan = plan_pools(geometry, World(), 60 * GIB, PlanOptions(max_running_requests=8))
    assert plan.page_tokens == 384
    assert plan.ranks[0].pool("swa_kv").page_tokens == 96
    with pytest.raises(PlanError, match=r"page size is 256; wanted a multiple of 384 tokens"):
        plan_pools(geometry, World(), 60 * GIB, PlanOptions(page_tokens=256))


def test_a_model_without_some_kind_of_layer_has_no_such_pools():
    """Layers that only have a window have one pool, and no state of requests."""
    geometry = geometry_of(with_layers(DEEPSEEK_V4_FLASH, 2), "c")
    plan = plan_pools(geometry, World(), GIB)
    assert [pool.name for pool in plan.ranks[0].pools] == ["swa_kv"]
    assert not [note for note in plan.notes if "max_running_requests" in note]


def test_a_pool_is_found_by_name():
    """A rank's pool by its name, and a KeyError where it has none."""
    rank = rank_of(V32)
    assert rank.pool("index_k").holds == "an index key for each token"
    with pytest.raises(KeyError, match="swa_kv"):
        rank.pool("swa_kv")


def test_every_pool_holds_exactly_what_its_numbers_say():
    """pages * page_bytes * layers; padding, extra pages and what does not grow are parts of it."""
    for pool in rank_of(V4, draft_tokens=3, max_running_requests=100).pools:
        assert pool.layer_bytes == pool.pages * pool.page_bytes
        assert pool.bytes == pool.layer_bytes * len(pool.layers)
        assert pool.tokens == (pool.pages - pool.extra_pages) * pool.page_tokens
        assert pool.extra_bytes == pool.extra_pages * pool.page_bytes * len(pool.layers)
        entries = pool.pages * pool.page_tokens * pool.entry_bytes * len(pool.layers)
        assert pool.padding_bytes == pool.bytes - entries
        grows = pool.name != "c128_state"
        assert pool.fixed_bytes == (pool.extra_bytes if grows else pool.bytes)


def test_estimated_requests():
    """512 for each longest context, from 2048 to 4096, and never more than one for two tokens."""
    assert estimated_requests(1_000_000, 100_000) == 4096
    assert estimated_requests(600_000, 100_000) == 3072
    assert estimated_requests(599_999, 100_000) == 3071
    assert estimated_requests(100_000, 100_000) == 2048
    assert estimated_requests(1000, 100_000) == 500
    assert estimated_requests(0, 100_000) == 0
