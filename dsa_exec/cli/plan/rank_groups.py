"""Ranks that hold the same, as one row, and why each of their pools takes what it takes."""

from __future__ import annotations

from collections.abc import Iterable

from dsa_exec.cli.plan.report import PoolOfModel, PoolOfRank, RankGroup
from dsa_exec.cli.show_report import count
from dsa_exec.memory.pool_plan import Plan, Pool, RankPlan


def rank_groups(plan: Plan) -> list[RankGroup]:
    """One group for each pipeline stage, whose ranks differ only in their place."""
    return [_group(plan, stage) for stage in plan.stages]


def pools_of_model(plan: Plan) -> list[PoolOfModel]:
    """Each kind of cache once, in all layers of the model."""
    by_name: dict[str, list[Pool]] = {}
    for stage in plan.stages:
        for pool in stage.pools:
            by_name.setdefault(pool.name, []).append(pool)
    return [_of_model(name, pools) for name, pools in by_name.items()]


def group_name(plan: Plan, pp: int) -> str:
    """The ranks of a stage in words: `pp 0, tp 0-7`; groups of one rank are left out."""
    sizes = (("dp", plan.world.dp), ("cp", plan.world.cp), ("tp", plan.world.attention_tp))
    axes = [f"pp {pp}"] if plan.world.pp > 1 else []
    axes += [f"{axis} 0-{many - 1}" for axis, many in sizes if many > 1]
    return ", ".join(axes) or "rank 0"


def _group(plan: Plan, stage: RankPlan) -> RankGroup:
    pp = stage.place.pp
    return RankGroup(
        name=group_name(plan, pp),
        ranks=[rank.place.rank for rank in plan.ranks if rank.place.pp == pp],
        pp=pp,
        layers=(stage.slice.start, stage.slice.end),
        draft_layers=stage.draft_layers,
        fits_tokens=stage.fits_tokens,
        is_limit=pp == plan.limiting.place.pp,
        bytes_per_token=stage.bytes_per_token,
        fixed_bytes=stage.fixed_bytes,
        pools_bytes=stage.bytes,
        free_bytes=stage.free_bytes,
        max_requests=stage.max_requests,
        pools=[_of_rank(pool) for pool in stage.pools],
    )


def _of_rank(pool: Pool) -> PoolOfRank:
    return PoolOfRank(
        name=pool.name,
        layers=list(pool.layers),
        entries=pool.tokens,
        entries_per_page=pool.page_tokens,
        entry_bytes=pool.entry_bytes,
        pages=pool.pages,
        extra_pages=pool.extra_pages,
        page_bytes=pool.page_bytes,
        bytes_per_token=pool.bytes_per_token,
        padding_bytes=pool.padding_bytes,
        extra_bytes=pool.extra_bytes,
        bytes=pool.bytes,
        why=_why(pool),
    )


def _of_model(name: str, pools: Iterable[Pool]) -> PoolOfModel:
    several = list(pools)
    exact = sum(pool.exact_bytes_per_token for pool in several)
    return PoolOfModel(
        name=name,
        holds=several[0].holds,
        layers=sum(len(pool.layers) for pool in several),
        bytes_per_token=-(-exact.numerator // exact.denominator),
        exact_bytes_per_token=float(exact),
    )


def _why(pool: Pool) -> str:
    """The pool's bytes as a product, and what in it is neither a token's nor a request's."""
    padding = pool.page_bytes - pool.page_tokens * pool.entry_bytes
    page = f"{pool.page_tokens} x {pool.entry_bytes} bytes" + (f" + {padding} of padding" if padding else "")
    layers = count(len(pool.layers), "layer")
    extra = f" ({pool.extra_pages} extra)" if pool.extra_pages else ""
    return f"{layers} x {count(pool.pages, 'page')}{extra} x ({page})"
