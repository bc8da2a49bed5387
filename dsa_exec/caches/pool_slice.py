"""The one line that a process of a pipeline tells of its layers."""

from __future__ import annotations

import logging

from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_world import World
from dsa_exec.memory.pool_plan import RankPlan

_log = logging.getLogger("dsa_exec.caches")
_said: set[str] = set()


def say_slice(geometry: ModelGeometry, world: World, rank: RankPlan) -> None:
    """Tell which layers a process has pools for, if there is more than one stage: once, as information.

    Such as `DSV4 pool PP slice: rank=1 layers=[22,43) local=21/43`: the stage, its layers without the end, how many
    these are of all. Draft layers are not counted. Other models than V4 say MLA in the place of DSV4.
    """
    if world.pp == 1:
        return
    model, layers = "DSV4" if geometry.compressed else "MLA", rank.slice
    told = f"{model} pool PP slice: rank={rank.place.pp} layers={layers} local={layers.local}/{layers.total}"
    if told not in _said:
        _said.add(told)
        _log.info("%s", told)


def forget_slices() -> None:
    """Tell everything anew: for tests."""
    _said.clear()
