"""How many requests of a length fit at once."""

from __future__ import annotations

from collections.abc import Iterator

from dsa_exec.cli.plan.report import Fit
from dsa_exec.memory.pool_plan import Plan
from dsa_exec.memory.pools_v4 import admission_tokens

SHORTEST = 4096
"""The shortest context that is shown, in tokens."""


def shown_contexts(longest: int) -> tuple[int, ...]:
    """Powers of two from the shortest context, and the longest itself."""
    doubled = []
    context = SHORTEST
    while context < longest:
        doubled.append(context)
        context *= 2
    return (*doubled, longest)


def fit(plan: Plan, context: int) -> Fit:
    """How many requests of so many tokens, and with speculation their draft tokens, fit at once.

    A request has whole pages, and where its context is split (cp), each part has. In V4 it also has its window's pages,
    and state.
    """
    return min((_fit(plan, context, *limit) for limit in _limits(plan, context)), key=lambda it: it.requests)


def _fit(plan: Plan, context: int, group: int, limit: str) -> Fit:
    return Fit(context_tokens=context, requests=group * plan.world.dp, requests_per_group=group, limit=limit)


def _limits(plan: Plan, context: int) -> Iterator[tuple[int, str]]:
    """Requests of one dp group, and what there is no more of."""
    per_rank = -(-(context + plan.options.draft_tokens) // plan.world.cp)
    per_rank = -(-per_rank // plan.page_tokens) * plan.page_tokens
    yield plan.tokens // per_rank, "tokens"
    if plan.geometry.compressed:
        window = admission_tokens(plan.geometry, plan.options, plan.page_tokens)
        yield min(stage.pool("swa_kv").tokens for stage in plan.stages) // window, "sliding-window pool"
    requests = plan.stages[0].max_requests
    if requests is not None:
        estimated = plan.options.max_running_requests is None
        yield requests, "state for requests, estimated" if estimated else "max_running_requests"
