"""All caches of one process, as its plan says, to the byte."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from dsa_config import settings
from dsa_exec.caches.pool_caches import KeyOptions, LayerCache, layer_cache
from dsa_exec.caches.pool_slice import say_slice
from dsa_exec.core.errors import PlanError
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_world import Place
from dsa_exec.memory.pool import Pool
from dsa_exec.memory.pool_plan import Plan, RankPlan


@dataclass(frozen=True, slots=True)
class AllocatedPool:
    """One pool of a plan, in memory.

    Attributes:
        pool: what was planned; its layout says what the bytes mean.
        caches: for each of `pool.layers`, in order: an `MlaCache` or `IndexKCache` where ops of this package take one,
            and else the tensor: uint8 [pages, page_bytes] for KV in padded pages and 4-bit keys, [pages, page_tokens,
            width] of the layout's dtype for unpadded KV and for state, [slots, width] uint8 for an MLA cache in
            fp8-raw.
    """

    pool: Pool
    caches: tuple[LayerCache, ...]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensor of each layer."""
        return tuple(it if isinstance(it, torch.Tensor) else it.data for it in self.caches)

    @property
    def bytes(self) -> int:
        """What the tensors take."""
        return sum(it.nbytes for it in self.tensors)


@dataclass(frozen=True, slots=True)
class RankPools:
    """All caches of one process.

    Attributes:
        plan: what was planned for it.
        pools: each pool, in the order of the plan.
    """

    plan: RankPlan
    pools: tuple[AllocatedPool, ...]

    @property
    def bytes(self) -> int:
        """What all tensors take."""
        return sum(pool.bytes for pool in self.pools)

    def cache(self, name: str, layer: int) -> LayerCache:
        """What a pool has for a layer, which is numbered as in the model.

        Raises:
            KeyError: there is no such pool, or it has nothing for this layer.
        """
        for allocated in self.pools:
            if allocated.pool.name == name and layer in allocated.pool.layers:
                return allocated.caches[allocated.pool.layers.index(layer)]
        raise KeyError((name, layer))


def allocate_pools(
    plan: Plan,
    geometry: ModelGeometry,
    place: Place,
    *,
    device: torch.device | str,
    pow2_scale: bool = False,
    hadamard: bool = False,
) -> RankPools:
    """Zeroed caches of one process: those of its plan, whatever settings say of formats.

    With more than one pipeline stage the process tells its layers to the log, once.

    Args:
        plan: the plan of all processes.
        geometry: the model that this process runs.
        place: where this process stands.
        device: where its caches are to be.
        pow2_scale: index keys' scales are rounded up to powers of two.
        hadamard: index keys are rotated before they are quantised.

    Raises:
        PlanError: the plan is one of another model, or has no such place.
        LayoutError: no kernel of the device takes index-K pages of this size.
    """
    rank = _rank_of(plan, geometry, place)
    say_slice(geometry, plan.world, rank)
    device, keys = torch.device(device), KeyOptions(pow2_scale, hadamard)
    pools = tuple(
        AllocatedPool(pool, tuple(layer_cache(geometry, pool, device, keys) for _ in pool.layers))
        for pool in rank.pools
    )
    assert [allocated.bytes for allocated in pools] == [pool.bytes for pool in rank.pools]
    made = [tensor for allocated in pools for tensor in allocated.tensors]
    settings.passed("allocate", f"pools of {rank.tokens} tokens were allocated", made=made)
    return RankPools(rank, pools)


def _rank_of(plan: Plan, geometry: ModelGeometry, place: Place) -> RankPlan:
    if plan.geometry != geometry:
        differ = [
            field.name
            for field in dataclasses.fields(geometry)
            if field.compare and getattr(plan.geometry, field.name) != getattr(geometry, field.name)
        ]
        values = ", ".join(f"{name} {_short(getattr(plan.geometry, name))}" for name in differ)
        wanted = ", ".join(f"{name} {_short(getattr(geometry, name))}" for name in differ)
        raise PlanError(f"model of the plan ({plan.geometry.origin})", values, f"{wanted}, as in {geometry.origin}")
    for rank in plan.ranks:
        if rank.place == place:
            return rank
    world = plan.world
    wanted = f"one of the {world.ranks} places of tp={world.tp}, pp={world.pp}, dp={world.dp}, cp={world.cp}"
    got = f"rank={place.rank}, pp={place.pp}, dp={place.dp}, cp={place.cp}, tp={place.tp}"
    raise PlanError("place of this process", got, wanted)


def _short(value: object) -> str:
    """A size, or of a long list what is in it: `43 entries (21 of 0, 22 of 4)`."""
    if not isinstance(value, tuple):
        return str(value)
    counts = ", ".join(f"{value.count(it)} of {it}" for it in sorted(set(value)))
    return f"{len(value)} entries ({counts})" if value else "no entries"
