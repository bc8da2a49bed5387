"""From a model, a world and memory to the pools of every rank."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_choices import Choices, Stage, choices_of
from dsa_exec.memory.plan_fit import fitting_tokens, least_tokens
from dsa_exec.memory.plan_notes import notes_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_refusal import too_small
from dsa_exec.memory.plan_terms import terms_of
from dsa_exec.memory.plan_world import Place, World
from dsa_exec.memory.pool_plan import Plan, RankPlan


def plan_pools(
    geometry: ModelGeometry,
    world: World,
    memory_bytes: int | Sequence[int],
    options: PlanOptions = PlanOptions(),  # noqa: B008  # frozen
) -> Plan:
    """The pools of every rank: the largest number of tokens, in whole pages, whose pools fit on each rank.

    Args:
        geometry: the model.
        world: the processes.
        memory_bytes: what the pools of a rank may take: one number for all ranks, one for each pipeline stage, or one
            for each rank, by its number.
        options: what is chosen.

    Returns:
        A plan in which no rank's bytes are more than its memory. All ranks hold the same number of tokens: on the rank
        with least room one page more would not fit, unless `max_tokens` is the limit.

    Raises:
        PlanError: the plan cannot be made: it says what is wrong, what is wanted and what to change.
        LayoutError: a format cannot hold the model's tokens.
    """
    choices = choices_of(geometry, world, memory_bytes, options)
    fits = [fitting_tokens(choices, stage) for stage in choices.stages]
    least = least_tokens(choices)
    for stage, fitting in zip(choices.stages, fits, strict=True):
        if fitting < least:
            raise too_small(choices, stage, fitting)
    tokens = min(fits)
    of_stage = [
        _rank_plan(choices, stage, fitting, tokens) for stage, fitting in zip(choices.stages, fits, strict=True)
    ]
    ranks = tuple(
        dataclasses.replace(_with_memory(choices, of_stage[place.pp], bytes, tokens), place=place)
        for place, bytes in zip(world.places(), choices.rank_bytes, strict=True)
    )
    return Plan(
        geometry=geometry,
        world=world,
        options=options,
        page_tokens=choices.page_tokens,
        context_tokens=choices.context_tokens,
        tokens=tokens,
        ranks=ranks,
        notes=notes_of(choices, fits, tokens),
    )


def fitting_on_rank(geometry: ModelGeometry, world: World, pp: int, memory_bytes: int, options: PlanOptions) -> int:
    """The tokens of context, whole pages, whose pools fit on a rank: what it can tell before it knows of others.

    Args:
        geometry: the model.
        world: the processes.
        pp: the rank's pipeline stage.
        memory_bytes: what its pools may take.
        options: what is chosen.

    Raises:
        PlanError: what was asked for is wrong, or not even one request has room.
        LayoutError: a format cannot hold the model's tokens.
    """
    choices = choices_of(geometry, world, memory_bytes, options)
    stage = choices.stages[pp]
    tokens = fitting_tokens(choices, stage)
    if tokens < least_tokens(choices):
        raise too_small(choices, stage, tokens)
    return tokens


def _with_memory(choices: Choices, rank: RankPlan, memory_bytes: int, tokens: int) -> RankPlan:
    """What a rank holds that has more memory than the one of its stage that has least: the same, with more left."""
    if memory_bytes == rank.memory_bytes:
        return rank
    stage = dataclasses.replace(choices.stages[rank.place.pp], memory_bytes=memory_bytes)
    return _rank_plan(choices, stage, fitting_tokens(choices, stage), tokens)


def _rank_plan(choices: Choices, stage: Stage, fits_tokens: int, tokens: int) -> RankPlan:
    """What every rank of a stage holds, with the place of the first."""
    pools = choices.pools(stage, tokens)
    return RankPlan(
        place=Place(rank=stage.pp * choices.world.stage_ranks, pp=stage.pp, dp=0, cp=0, tp=0),
        slice=stage.slice,
        draft_layers=stage.draft_layers,
        memory_bytes=stage.memory_bytes,
        fits_tokens=fits_tokens,
        tokens=tokens,
        max_requests=choices.requests(tokens),
        pools=pools,
        terms=terms_of(choices, stage, pools, fits_tokens, tokens),
    )
