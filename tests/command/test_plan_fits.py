"""How many requests `dsa plan` says fit at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dsa_exec
from dsa_exec.cli.plan.fits import fit, shown_contexts
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_pools import plan_pools
from dsa_exec.memory.plan_world import World

MODELS = Path(dsa_exec.__file__).parents[1] / "examples" / "plan"
V32, V4 = (
    geometry_of(json.loads((MODELS / f"{name}.json").read_text()), name)
    for name in ("deepseek_v32", "deepseek_v4_flash")
)
PLANS = [
    plan_pools(V32, World(tp=8, dp=2, cp=4), 40 * 2**30),
    plan_pools(V32, World(pp=2), 20 * 2**30, PlanOptions(draft_tokens=3, page_tokens=1)),
    plan_pools(V32, World(tp=4, dp=4), 20 * 2**30, PlanOptions(max_running_requests=9)),
    plan_pools(V4, World(tp=8), 60 * 2**30, PlanOptions(draft_tokens=2)),
    plan_pools(V4, World(pp=3, cp=2), 30 * 2**30, PlanOptions(max_running_requests=300)),
]


@given(st.sampled_from(PLANS), st.integers(1, 2**21), st.integers(0, 2**12))
def test_requests_hold_what_there_is_and_no_more(plan, context, more):
    """Each request's part has its pages on every rank, one request more has not; longer contexts are never more."""
    it = fit(plan, context)
    part = -(-(context + plan.options.draft_tokens) // plan.world.cp)
    pages = -(-part // plan.page_tokens)
    assert it.requests == it.requests_per_group * plan.world.dp
    assert it.requests_per_group * pages * plan.page_tokens <= plan.tokens
    if it.limit == "tokens":
        assert (it.requests_per_group + 1) * pages * plan.page_tokens > plan.tokens
    assert fit(plan, context + more).requests <= it.requests


def test_running_requests_are_shared_by_groups():
    """Nine requests for four groups are two for each: the ninth cannot run."""
    it = fit(PLANS[2], 100)
    assert (it.requests_per_group, it.requests, it.limit) == (2, 8, "max_running_requests")


@pytest.mark.parametrize(
    ("longest", "shown"),
    [(1, (1,)), (4096, (4096,)), (4097, (4096, 4097)), (20000, (4096, 8192, 16384, 20000))],
)
def test_contexts_that_are_shown(longest, shown):
    """Powers of two from 4096, and the longest once."""
    assert shown_contexts(longest) == shown
