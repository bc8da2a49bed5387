"""What the ancestor's planner gets wrong: draft layers, padding, windows too small, state of requests, slices."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from model_configs import DEEPSEEK_V4_FLASH, DEEPSEEK_V32, V4_RATIOS, with_layers
from oracles.pool_bytes import mla_bytes, pages_of_a_run, v4_bytes

from dsa_exec.core.errors import PlanError
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_fit import least_tokens
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_pools import plan_pools
from dsa_exec.memory.plan_world import World

GIB = 2**30
V32 = geometry_of(DEEPSEEK_V32, "v32/config.json")
V4 = geometry_of(DEEPSEEK_V4_FLASH, "v4/config.json")
TENTH = Fraction(1, 10)


def rank_of(geometry, memory=40 * GIB, **options):
    return plan_pools(geometry, World(), memory, PlanOptions(**options)).ranks[0]


@pytest.mark.parametrize(("draft_layers", "cost"), [(0, 0), (1, 467.2), (3, 1401.6)])
def test_T39_a_v4_draft_layer_costs_its_window(draft_layers, cost):
    """T39: at a ratio of 0.8 a draft layer costs 467.2 bytes a token and three cost 1401.6, not 1056.8 each."""
    options = {"swa_full_tokens_ratio": 0.8, "draft_tokens": 4, "max_running_requests": 64}
    without, rank = (rank_of(V4, draft_layers=layers, **options) for layers in (0, draft_layers))
    assert rank.exact_bytes_per_token - without.exact_bytes_per_token == Fraction(str(cost))
    assert rank.draft_layers == draft_layers


def test_T39_a_draft_layer_that_compresses_costs_what_its_ratio_says():
    """T39: a list that tells a ratio of 4 for the draft layer makes it cost compressed KV, index keys and state too."""
    compressing = geometry_of({**DEEPSEEK_V4_FLASH, "compress_ratios": [*V4_RATIOS, 4]}, "c")
    assert rank_of(compressing, draft_tokens=2, max_running_requests=64).pool("c4_kv").layers[-1] == 43
    assert rank_of(V4, draft_tokens=2, max_running_requests=64).pool("c4_kv").layers[-1] == 42


def test_T39_draft_layers_of_mla_models_cost_a_layer_each():
    """T39: an MLA draft layer takes KV and index keys like any layer; without speculation it is not there."""
    assert rank_of(V32).bytes_per_token == 788 * 61
    assert rank_of(V32, draft_tokens=2).bytes_per_token == 788 * 62
    assert rank_of(V32, draft_tokens=2, draft_layers=3).bytes_per_token == 788 * 64


def test_T39_only_the_last_stage_has_draft_layers():
    """T39: of four stages three reserve nothing for a draft layer, and the last has it with a number of its own."""
    plan = plan_pools(V4, World(pp=4), 40 * GIB, PlanOptions(draft_tokens=2, max_running_requests=64))
    assert [stage.draft_layers for stage in plan.stages] == [0, 0, 0, 1]
    assert [stage.pool("swa_kv").layers[-1] for stage in plan.stages] == [10, 21, 32, 43]
    assert [len(stage.pool("swa_kv").layers) for stage in plan.stages] == [11, 11, 11, 11]


@pytest.mark.parametrize(
    ("page", "pool", "percent"),
    [(256, "swa_kv", 0.17), (256, "c4_kv", 0.17), (256, "c128_kv", 47.9), (128, "c128_kv", 97.3)],
)
def test_T40_padding_of_pages_is_counted(page, pool, percent):
    """T40: pages are padded to multiples of 576 bytes: 0.17 % for large ones, 48 and 97 % for two and one token."""
    pool = rank_of(V4, page_tokens=page, max_running_requests=64).pool(pool)
    assert pool.page_bytes % 576 == 0
    assert 100 * (pool.page_bytes / (pool.page_tokens * 584) - 1) == pytest.approx(percent, abs=0.1)
    assert pool.padding_bytes == (pool.page_bytes - pool.page_tokens * 584) * pool.pages * len(pool.layers)


def test_T40_without_padding_and_extra_pages_the_plan_would_not_fit():
    """T40: the tokens of the published formula need more than the memory there is; the plan's need no more."""
    memory = 20 * GIB
    rank = rank_of(V4, memory, max_running_requests=64)
    [published] = [term.value for term in rank.terms if term.name == "tokens without padding and extra pages"]
    sizes = {"page": 256, "ratio": TENTH, "speculative": False, "requests": 64}
    assert v4_bytes(V4_RATIOS, int(published), **sizes) > memory >= v4_bytes(V4_RATIOS, rank.tokens, **sizes)


def test_T40_every_pool_has_its_extra_page():
    """T40: what fits exactly, with the extra pages, is planned; a byte less of memory is a page less."""
    exactly = mla_bytes(656, 61, 61, 6400, 64)
    assert (rank_of(V32, exactly).tokens, rank_of(V32, exactly).free_bytes) == (6400, 0)
    assert rank_of(V32, exactly - 1).tokens == 6336
    exactly = v4_bytes(V4_RATIOS, 25600, page=256, ratio=TENTH, speculative=True, requests=8)
    options = {"max_running_requests": 8, "draft_tokens": 2, "draft_layers": 0}
    assert (rank_of(V4, exactly, **options).tokens, rank_of(V4, exactly, **options).free_bytes) == (25600, 0)
    assert rank_of(V4, exactly - 1, **options).tokens == 25344


def test_T41_a_window_pool_of_one_page_is_refused():
    """T41: 256 tokens of window, one page, could never admit a request: the error says which ratio and bytes would."""
    memory = v4_bytes(V4_RATIOS, 4864, page=256, ratio=TENTH, speculative=False, requests=8)
    with pytest.raises(PlanError) as caught:
        rank_of(V4, memory, max_running_requests=8)
    error = caught.value
    assert error.what == "tokens of the sliding-window pool of a rank"
    assert error.got == "256 (of 4864 tokens of context)"
    assert error.wanted == "at least 512 for one request: the window of 128 tokens can lie in 2 pages of 256"
    needed = v4_bytes(V4_RATIOS, 5120, page=256, ratio=TENTH, speculative=False, requests=8)
    ratio, rest = re.fullmatch(r"Raise swa_full_tokens_ratio from 0.1 to (0\.\d+), or (.*)", error.change).groups()
    assert rest.startswith(f"give its pools {needed - memory} bytes more ({needed} in place of {memory})")
    assert rank_of(V4, memory, max_running_requests=8, swa_full_tokens_ratio=ratio).pool("swa_kv").tokens == 512
    lower = str(float(ratio) - 0.01)
    with pytest.raises(PlanError, match="sliding-window pool"):
        rank_of(V4, memory, max_running_requests=8, swa_full_tokens_ratio=lower)


def test_T41_a_window_pool_of_no_page_is_refused():
    """T41: also where the window rounds down to nothing, and with it the states of ratio-4 layers."""
    memory = v4_bytes(V4_RATIOS, 2304, page=256, ratio=TENTH, speculative=False, requests=8)
    with pytest.raises(PlanError, match=r"is 0 \(of 2304 tokens of context\); wanted at least 512 for one request"):
        rank_of(V4, memory, max_running_requests=8)


@examples(deadline=None)
@given(
    page=st.sampled_from([128, 256, 384]),
    draft_tokens=st.integers(0, 10),
    memory=st.integers(10**7, 2 * 10**8),
    hundredths=st.integers(1, 100),
    limit=st.none() | st.integers(1, 20_000),
)
def test_T41_a_plan_admits_a_request_or_says_what_would(page, draft_tokens, memory, hundredths, limit):
    """T41: each window pool has all pages that a window and its drafts can lie in; what an error proposes works."""
    options = PlanOptions(
        page_tokens=page,
        draft_tokens=draft_tokens,
        max_running_requests=4,
        swa_full_tokens_ratio=Fraction(hundredths, 100),
        max_tokens=limit,
    )
    needed = pages_of_a_run(127 + max(1, draft_tokens), page) * page

    def check_admits(memory, options):
        assert plan_pools(V4, World(), memory, options).ranks[0].pool("swa_kv").tokens >= needed

    try:
        check_admits(memory, options)
    except PlanError as error:
        proposed = re.search(r"aise swa_full_tokens_ratio from \S+ to (\S+?),? ?(or|$)", error.change)
        if proposed:
            check_admits(memory, dataclasses.replace(options, swa_full_tokens_ratio=proposed[1]))
        bytes, tokens = (re.search(text, error.change) for text in (r"more \((\d+) in", r"at least (\d+)$"))
        assert proposed or bytes or tokens
        if bytes or tokens:
            changed = dataclasses.replace(options, max_tokens=int(tokens[1])) if tokens else options
            check_admits(int(bytes[1]) if bytes else memory, changed)
        fewer = re.search(r"max_running_requests from 4 to at most (\d+)$", error.change)
        if fewer:
            check_admits(memory, dataclasses.replace(options, max_running_requests=int(fewer[1])))


def test_T41_mla_models_need_a_page():
    """T41: memory for less than a page and the extra one is an error with the bytes that are missing."""
    needed = mla_bytes(656, 61, 61, 64, 64)
    assert rank_of(V32, needed).tokens == 64
    with pytest.raises(PlanError) as caught:
        rank_of(V32, needed - 5)
    assert str(caught.value) == (
        "tokens that fit in the pools of a rank is 0; wanted at least 64, one page. "
        f"Give its pools 5 bytes more ({needed} in place of {needed - 5})"
    )
    with pytest.raises(PlanError, match=r"wanted at least 64, one page\. Raise max tokens from 63 to at least 64$"):
        rank_of(V32, needed, max_tokens=63)
    with pytest.raises(PlanError, match=r"Give its pools 5 bytes more \(.*\) and raise max tokens from 63 to at"):
        rank_of(V32, needed - 5, max_tokens=63)


def test_T42_the_state_of_requests_follows_their_number():
    """T42: known requests, one more for padded rows, a ring of 128 rows each and one ring more; divided by dp."""
    for requests, dp, of_group in ((64, 1, 64), (64, 4, 16), (65, 4, 16)):
        options = PlanOptions(max_running_requests=requests)
        rank = plan_pools(V4, World(dp=dp), 40 * GIB, options).ranks[0]
        rows = (of_group + 1) * 128 + 256
        assert rank.pool("c128_state").bytes == rows * 1024 * 4 * 20
        assert rank.max_requests == of_group
    assert rank_of(V4, max_running_requests=64, draft_tokens=2).pool("c128_state").bytes == (
        (65 * 256 + 384) * 1024 * 4 * 20
    )


def test_T42_an_estimate_is_said_to_be_one():
    """T42: requests that nobody knows are estimated from the tokens and the context length, and a note says so."""
    memory = 60 * GIB
    plan = plan_pools(V4, World(), memory)
    assert plan.ranks[0].max_requests == min(max(2048, min(plan.tokens * 512 // 1048576, 4096)), plan.tokens // 2)
    [note] = [note for note in plan.notes if "max_running_requests" in note]
    assert note.startswith(f"max_running_requests is not known: {plan.ranks[0].max_requests} requests are estimated")
    short = plan_pools(V4, World(), memory, PlanOptions(context_tokens=1024))
    assert short.ranks[0].max_requests == 4096
    told = plan_pools(V4, World(), memory, PlanOptions(max_running_requests=64))
    assert not [note for note in told.notes if "max_running_requests" in note]


def test_T42_a_limit_on_tokens_pays_for_the_state_too():
    """T42: with `max_tokens` the state of requests is still in the bytes, and still must fit."""
    options = {"max_tokens": 32768, "max_running_requests": 2048}
    counted = v4_bytes(V4_RATIOS, 32768, page=256, ratio=TENTH, speculative=False, requests=2048)
    assert (rank_of(V4, counted, **options).tokens, rank_of(V4, counted, **options).bytes) == (32768, counted)
    assert rank_of(V4, counted - 1, **options).tokens == 32512
    with pytest.raises(PlanError) as caught:
        rank_of(V4, 20 * GIB, **options)
    fewer = re.search(r"lower max_running_requests from 2048 to at most (\d+)$", caught.value.change)
    most = int(fewer[1])
    assert rank_of(V4, 20 * GIB, **{**options, "max_running_requests": most}).tokens >= 5120
    with pytest.raises(PlanError):
        rank_of(V4, 20 * GIB, **{**options, "max_running_requests": most + 1})
    with pytest.raises(PlanError, match=r"give max_running_requests, at most \d+ \(2048 are estimated\)$"):
        rank_of(V4, 20 * GIB)


def test_T42_one_running_state_in_place_of_a_ring():
    """T42: compressing online, each request has one row and one for each draft token, in the plan as in the pool."""
    for draft_tokens in (0, 3):
        options = {"max_running_requests": 64, "draft_tokens": draft_tokens, "draft_layers": 0}
        pool = rank_of(V4, online_c128=True, **options).pool("c128_state")
        assert pool.pages * pool.page_tokens == (65 + 1 + 1) * (1 + draft_tokens)
        assert pool.bytes == (65 + 1 + 1) * (1 + draft_tokens) * 3 * 512 * 4 * 20
        assert pool.tokens == 65 * (1 + draft_tokens)


@pytest.mark.parametrize("world", [World(), World(pp=2), World(tp=4, pp=3, dp=2, cp=2)])
def test_T38_slices_have_the_ratios_of_their_own_layers(world):
    """T38: each stage counts the layers of its slice and no other, however long the list in the file is."""
    plan = plan_pools(V4, world, 40 * GIB, PlanOptions(max_running_requests=64))
    for stage in plan.stages:
        local = V4_RATIOS[stage.slice.start : stage.slice.end]
        assert len(stage.pool("swa_kv").layers) == len(local) == stage.slice.local
        for name, ratio in (("c4_kv", 4), ("c128_kv", 128)):
            layers = stage.pool(name).layers
            assert [V4_RATIOS[layer] for layer in layers] == [ratio] * local.count(ratio)
            assert set(layers) <= set(stage.slice.layers)


def test_the_least_tokens_are_the_least_that_admit():
    """With fewer tokens the window has no room for a request, for ratios that round up or not."""
    from dsa_exec.memory.plan_choices import choices_of
    from dsa_exec.memory.pools_v4 import swa_tokens

    for ratio in ("0.1", "0.3", "1", Fraction(1, 7)):
        options = PlanOptions(swa_full_tokens_ratio=ratio, max_running_requests=1)
        least = least_tokens(choices_of(geometry_of(with_layers(DEEPSEEK_V4_FLASH, 3), "c"), World(), GIB, options))
        assert swa_tokens(least, options.swa_ratio, 256) >= 512 > swa_tokens(least - 256, options.swa_ratio, 256)
