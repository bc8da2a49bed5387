"""The best way to split a model over so many GPUs, for each number of GPUs and each context."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_world import World
from dsa_exec.planning.stages import StageLayers, stages_of
from dsa_exec.planning.step_times import Model, StageTime

GIB = 2**30

CHUNK_ROWS = 8192
"""Tokens of a prefill that go through the model at once."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A split with its requests, all of the same context, and what it does.

    Attributes:
        world: the split.
        requests: that run at once, all dp groups together.
        step_us: a decode step of all of them: the time between two tokens of a request.
        slowest: the stage that decides how fast the others go, for the requests of one micro-batch.
        prefill_us: from a prompt of the context's length to its first token, every group having one.
        last_chunk: of such a prompt, in the slowest stage.
        weight_bytes: of the rank that has most.
        pool_bytes: of the rank whose stage takes most, for the tokens that fit on all.
        tokens: of context that fit on every rank.
    """

    world: World
    requests: int
    step_us: float
    slowest: StageTime
    prefill_us: float
    last_chunk: StageTime
    weight_bytes: int
    pool_bytes: int
    tokens: int

    @property
    def tokens_a_second(self) -> float:
        """Of decode, all requests together."""
        return self.requests / self.step_us * 1e6

    @property
    def gpu_seconds_a_million(self) -> float:
        """GPU-seconds for a million tokens of decode: the cost."""
        return self.world.ranks / self.tokens_a_second * 1e6


@dataclass(frozen=True, slots=True)
class Cell:
    """One number of GPUs and one context.

    Attributes:
        gpus: how many.
        context: tokens of every request.
        best: the deployment that decodes most tokens a second; None where nothing fits.
        why_not: why nothing fits; empty where something does.
        splits: how many ways to split were looked at.
    """

    gpus: int
    context: int
    best: Deployment | None
    why_not: str
    splits: int


@dataclass(frozen=True, slots=True)
class _Fitting:
    """A split whose weights fit, and the tokens of context that do beside them."""

    world: World
    stages: tuple[StageLayers, ...]
    page_tokens: int
    weight_bytes: int
    tokens: int


def sweep(
    model: Model, static_bytes: int, gpus: Sequence[int], contexts: Sequence[int], options: PlanOptions
) -> tuple[Cell, ...]:
    """Every number of GPUs with every context.

    Args:
        model: what is deployed, with which kernels, on which machine.
        static_bytes: what weights and pools may take of a GPU.
        gpus: how many, each at least 1.
        contexts: in tokens, each at least 1.
        options: of the pools.

    Raises:
        PlanError, LayoutError: an option is wrong, or does not fit the model.
    """
    stages = functools.cache(lambda pp: stages_of(model.geometry, model.weights, pp, options))
    cells = []
    for count in gpus:
        worlds = tuple(splits(count, model.geometry.layers, model.weights.heads))
        fitting, least_bytes = [], 0
        for world in worlds:
            kinds, page_tokens = stages(world.pp)
            sizes = [kind.weight_bytes(model.weights, world) for kind in kinds]
            least_bytes = min(least_bytes or max(sizes), max(sizes))
            tokens = min(kind.tokens(static_bytes - size, page_tokens) for kind, size in zip(kinds, sizes, strict=True))
            if tokens:
                fitting.append(_Fitting(world, kinds, page_tokens, max(sizes), tokens))
        cells += [_cell(model, count, context, worlds, fitting, static_bytes, least_bytes) for context in contexts]
    return tuple(cells)


def splits(gpus: int, layers: int, heads: int) -> Iterator[World]:
    """Every way to split so many GPUs: stages with a layer at least, and heads that divide evenly."""
    for pp in _divisors(gpus):
        stage = gpus // pp
        for groups in _divisors(stage):
            if pp > layers or heads % (stage // groups):
                continue
            for cp in _divisors(groups):
                yield World(tp=stage, pp=pp, dp=groups // cp, cp=cp)


def _divisors(number: int) -> list[int]:
    return [it for it in range(1, number + 1) if number % it == 0]


def _cell(
    model: Model,
    gpus: int,
    context: int,
    worlds: Sequence[World],
    fitting: Sequence[_Fitting],
    static_bytes: int,
    least_bytes: int,
) -> Cell:
    rated = [(*rate, it) for it in fitting if (rate := _decode(model, it, context))]
    if rated:
        requests, step_us, slowest, best = max(rated, key=lambda it: it[0] / it[1])
        first_us, last_chunk = prefill(model, best.world, best.stages, context)
        deployment = Deployment(
            world=best.world,
            requests=requests,
            step_us=step_us,
            slowest=slowest,
            prefill_us=first_us,
            last_chunk=last_chunk,
            weight_bytes=best.weight_bytes,
            pool_bytes=max(it.pool_bytes(best.tokens, best.page_tokens) for it in best.stages),
            tokens=best.tokens,
        )
        return Cell(gpus, context, deployment, "", len(worlds))
    needed, there = (f"{bytes_ / GIB:.1f} GiB" for bytes_ in (least_bytes, static_bytes))
    if not fitting and least_bytes > static_bytes:
        why = f"a GPU would have {needed} of weights at least, and has {there} for weights and pools"
    elif not fitting:
        why = f"beside {needed} of weights or more there is no room for one page of tokens in {there}"
    else:
        most = max(fitting, key=lambda it: it.tokens * it.world.cp)
        why = f"a request can have {most.tokens * most.world.cp} tokens at most"
    return Cell(gpus, context, None, why, len(worlds))


def _decode(model: Model, it: _Fitting, context: int) -> tuple[int, float, StageTime] | None:
    """Requests, the time between two tokens of each, and the slowest stage's; None if not one request fits.

    Requests go through a pipeline in as many micro-batches as there are stages; with fewer requests stages are idle.
    """
    world = it.world
    part = -(-context // world.cp)
    part += -part % it.page_tokens
    requests = it.tokens // part
    if requests == 0:
        return None
    batches = min(world.pp, requests)
    size = min(requests // batches, int(model.kernels.most_requests))
    times = [model.decode(world, stage, size, context) for stage in it.stages]
    slowest = max(times, key=lambda time: time.us)
    return batches * size * world.dp, world.pp * slowest.us, slowest


def prefill(model: Model, world: World, stages: Sequence[StageLayers], context: int) -> tuple[float, StageTime]:
    """A prompt in chunks through all stages: all chunks through the slowest one, and the last through the others.

    Args:
        model: what it goes through.
        world: the split.
        stages: each kind of stage of that split.
        context: tokens of the prompt, at least 1.

    Returns:
        Microseconds to the first token, and what the last chunk takes in the slowest stage.
    """
    total = 0.0
    for end in range(CHUNK_ROWS, context + CHUNK_ROWS, CHUNK_ROWS):
        rows = CHUNK_ROWS - max(0, end - context)
        times = [model.prefill(world, stage, rows, min(end, context)) for stage in stages]
        last = max(times, key=lambda time: time.us)
        total += last.us
    return total + (world.pp - 1) * last.us, last
