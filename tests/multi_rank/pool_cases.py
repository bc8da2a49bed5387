"""What ranks do in the tests of pools: each function runs on every rank, with the rank as its first argument."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dsa_config import settings
from dsa_exec.core.hardware import MemoryReading
from dsa_exec.memory.geometry import geometry_of
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_world import World
from dsa_exec.runtime.distributed import stage_pools
from dsa_exec.runtime.distributed.ranks import Ranks
from dsa_exec.runtime.distributed.stage_pools import allocate_stage_pools, plan_stage_pools


@dataclass(frozen=True)
class Asked:
    """A deployment: a config.json's content, sizes of the world, options, and each rank's total and free bytes."""

    config: Mapping[str, Any]
    world: Mapping[str, int]
    memory: tuple[tuple[int, int], ...]
    options: Mapping[str, Any]

    def on(self, rank: int) -> dict[str, Any]:
        return {
            "geometry": geometry_of(self.config, f"config.json of rank {rank}"),
            "world": World(**self.world),
            "options": PlanOptions(**self.options),
            "device": "cpu",
            "memory": MemoryReading(*self.memory[rank]),
        }


@dataclass(frozen=True)
class Held:
    """What one rank has: tokens, bytes of storages, layers of each pool, and why; what it may take."""

    tokens: int
    bytes: int
    layers: Mapping[str, tuple[int, ...]]
    why: str
    memory_bytes: int


def allocate(rank: int, asked: Asked) -> Held:
    """The bytes are those of all storages, each counted once, and nothing that a plan says."""
    held = allocate_stage_pools(**asked.on(rank))
    tensors = [tensor for pool in held.pools.pools for tensor in pool.tensors]
    storages = {it.untyped_storage().data_ptr(): it.untyped_storage().nbytes() for it in tensors}
    assert held.pools.plan == held.planned.rank
    layers = {it.pool.name: it.pool.layers for it in held.pools.pools}
    plan = held.planned
    return Held(plan.rank.tokens, sum(storages.values()), layers, plan.why, plan.rank.memory_bytes)


def plan_and_count(rank: int, asked: Asked) -> tuple[int, list[int]]:
    """The tokens, and the bytes that this rank sent in each collective."""
    sent: list[int] = []
    gather = Ranks.gather_rows

    def counted(self: Ranks, row: bytes) -> dict[int, bytes]:
        sent.append(len(row))
        return gather(self, row)

    with replaced(Ranks, "gather_rows", counted):
        tokens = plan_stage_pools(**asked.on(rank)).plan.tokens
    return tokens, sent


def with_fractions(rank: int, asked: Asked, fractions: Mapping[int, float]) -> int:
    """The tokens where ranks have the setting as given."""
    with settings.override(mem_fraction_static=fractions[rank]):
        return plan_stage_pools(**asked.on(rank)).plan.tokens


def failing(rank: int, asked: Asked, failures: Mapping[int, tuple[str, Exception]]) -> tuple[str, str]:
    """How it ends where a function of the module raises on some ranks; memory is then read there, and not given."""
    name, error = failures.get(rank, ("", None))

    def raising(*_: object, **__: object) -> object:
        assert error is not None
        raise error

    given = asked.on(rank)
    if not name:
        return ended(given)
    if name == "memory_reading":
        given["memory"] = None
    with replaced(stage_pools, name, raising):
        return ended(given)


def with_plans(rank: int, asked: Mapping[int, Asked]) -> tuple[str, str]:
    """How it ends where each rank asks for its own."""
    return ended(asked[rank].on(rank))


def without_one(rank: int, asked: Asked, missing: int, timeout: float) -> tuple[str, str]:
    """How it ends where one rank dies before the others call."""
    if rank == missing:
        os._exit(3)
    return ended({**asked.on(rank), "timeout": timeout})


def ended(given: Mapping[str, Any]) -> tuple[str, str]:
    """The type and the words of the error; none if there is none."""
    try:
        allocate_stage_pools(**given)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


@contextmanager
def replaced(owner: Any, name: str, by: Any) -> Iterator[None]:
    """Something else in the place of an attribute, for a while."""
    was = getattr(owner, name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, was)
