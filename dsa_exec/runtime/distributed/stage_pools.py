"""Every rank's own pools, as large as the rank with least room allows: planned together, allocated by each for itself.

A rank of a pipeline allocates the layers of its stage and no others. All must hold the same number of tokens, since a
token has its place in the pools of every stage; so each tells the others what memory it has, and all make one plan.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import torch

from dsa_config import settings
from dsa_exec.caches.pools import RankPools, allocate_pools
from dsa_exec.core.errors import PlanError
from dsa_exec.core.hardware import MemoryReading, memory_reading
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_pools import fitting_on_rank, plan_pools
from dsa_exec.memory.plan_world import Place, World
from dsa_exec.memory.pool_memory import USUAL_FRACTION, pool_bytes
from dsa_exec.memory.pool_plan import Plan, RankPlan
from dsa_exec.runtime.distributed.outcomes import each_does
from dsa_exec.runtime.distributed.ranks import RankFailed, Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

TIMEOUT_S = 60.0
"""How long ranks wait for each other, in seconds, if the caller does not say."""

_GOOD, _FAILED = b"\0", b"\1"
_DIGEST_BYTES, _NUMBER_BYTES = 16, 8

_log = logging.getLogger("dsa_exec.distributed")


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What all ranks of a group hold, the same on each of them.

    Attributes:
        plan: of all ranks, each with the memory that it told; `plan.limiting` is the one with least room.
        place: where this process stands.
    """

    plan: Plan
    place: Place

    @property
    def rank(self) -> RankPlan:
        """What this process holds."""
        return self.plan.ranks[self.place.rank]

    @property
    def why(self) -> str:
        """Why there are so many tokens, in a sentence: which rank has least room, and what others would have."""
        least, most = self.plan.limiting, max(self.plan.ranks, key=lambda rank: rank.fits_tokens)
        told = f"{self.plan.tokens} tokens on every rank"
        limit = self.plan.options.max_tokens
        if limit is not None and limit // self.plan.page_tokens * self.plan.page_tokens == self.plan.tokens:
            return f"{told}, the most of max_tokens={limit}"
        bytes_ = f"whose pools may take {least.memory_bytes} bytes"
        told = f"{told}, as many as fit on rank {least.place.rank} (layers {least.slice}), {bytes_}"
        if most.fits_tokens == self.plan.tokens:
            return told
        return f"{told}; rank {most.place.rank} (layers {most.slice}) has room for {most.fits_tokens}"


@dataclass(frozen=True, slots=True)
class StagePools:
    """The caches of this process, and the plan of all.

    Attributes:
        planned: what all ranks hold, and why.
        pools: what this one has.
    """

    planned: StagePlan
    pools: RankPools


def plan_stage_pools(
    geometry: ModelGeometry,
    world: World,
    options: PlanOptions = PlanOptions(),  # noqa: B008  # frozen
    *,
    device: torch.device | str,
    group: ProcessGroup | None = None,
    memory: MemoryReading | None = None,
    timeout: float = TIMEOUT_S,
) -> StagePlan:
    """Plan the pools of all ranks of a group from the memory that each of them has now. All ranks call it.

    Each rank reads its memory with its weights on the device, and takes `mem_fraction_static` of all of it (0.9 where
    that is not set), less what is taken already. Ranks may read different numbers: all get the tokens that fit on the
    rank with least room. If all goes well each sends 25 bytes, once.

    Args:
        geometry: the model, the same on all ranks.
        world: the processes, likewise; the ranks of the group in their order are its places.
        options: what is chosen, likewise.
        device: where this rank's pools are to be.
        group: the process group; the default group if not given.
        memory: of this rank, if it is not to be read now: ranks that share a device must share its memory out.
        timeout: how long to wait for the other ranks, in seconds.

    Raises:
        PlanError, LayoutError: the plan cannot be made, and so says every rank.
        RankFailed: some ranks cannot read their memory, have too little, or ask for another plan; on every rank.
        RankLost: not all ranks answered in time.
        NoProcessGroup: torch.distributed is not initialised, or this process is not of the group.
        ValueError: a timeout that is none.
    """
    ranks = Ranks.of(group, "plan_stage_pools()", timeout)
    return _planned(ranks, geometry, world, options, torch.device(device), memory)


def allocate_stage_pools(
    geometry: ModelGeometry,
    world: World,
    options: PlanOptions = PlanOptions(),  # noqa: B008  # frozen
    *,
    device: torch.device | str,
    group: ProcessGroup | None = None,
    memory: MemoryReading | None = None,
    pow2_scale: bool = False,
    hadamard: bool = False,
    timeout: float = TIMEOUT_S,
) -> StagePools:
    """`plan_stage_pools`, and then the pools of this rank's stage in memory. All ranks call it.

    Ranks tell each other that they have allocated, in another 17 bytes: all have their pools, or none.

    Args:
        geometry: as of `plan_stage_pools`, as are the arguments without a line of their own.
        world: likewise.
        options: likewise.
        device: likewise.
        group: likewise.
        memory: likewise.
        pow2_scale: index keys' scales are rounded up to powers of two.
        hadamard: index keys are rotated before they are quantised.
        timeout: likewise, for each.

    Raises:
        PlanError, LayoutError: as of `plan_stage_pools`, or every rank says so of its pools.
        RankFailed: as there, or some ranks cannot allocate; on every rank.
        RankLost, NoProcessGroup, ValueError: as there.
    """
    ranks = Ranks.of(group, "allocate_stage_pools()", timeout)
    planned = _planned(ranks, geometry, world, options, torch.device(device), memory)

    def own_pools() -> tuple[RankPools, str]:
        keys = {"pow2_scale": pow2_scale, "hadamard": hadamard}
        made = allocate_pools(planned.plan, geometry, planned.place, device=device, **keys)
        return made, f"allocates pools of {planned.plan.tokens} tokens"

    pools = each_does(ranks, own_pools, is_told=True)
    return StagePools(planned, pools)


def _planned(
    ranks: Ranks,
    geometry: ModelGeometry,
    world: World,
    options: PlanOptions,
    device: torch.device,
    memory: MemoryReading | None,
) -> StagePlan:
    """One plan on all ranks. Whatever goes wrong before they have heard each other is said, not raised."""
    own, number, failed = ranks.place, 0, None
    asked: dict[str, str] = {}
    try:
        asked = _asked(geometry, world, options)
        if world.ranks != len(ranks.ranks):
            sizes = f"tp={world.tp}, pp={world.pp}, dp={world.dp}, cp={world.cp}"
            raise PlanError("number of ranks of the group", len(ranks.ranks), f"{world.ranks}, as of {sizes}")
        number = pool_bytes(memory_reading(device) if memory is None else memory, _fraction())
        fitting_on_rank(geometry, world, world.places()[own].pp, number, options)
    except Exception as error:  # a driver's, a validator's, or that too little is left: the others wait for an answer
        failed = error
    digest = hashlib.blake2b(json.dumps(asked).encode(), digest_size=_DIGEST_BYTES).digest()
    status = _GOOD if failed is None else _FAILED
    rows = ranks.gather_rows(status + digest + max(number, 0).to_bytes(_NUMBER_BYTES, "big"))
    _require_one_plan(ranks, rows, asked, failed)
    numbers = [int.from_bytes(row[-_NUMBER_BYTES:], "big") for row in rows.values()]
    planned = StagePlan(plan_pools(geometry, world, numbers, options), world.places()[own])
    _log.info("%s: %s", ranks.what, planned.why)
    return planned


def _require_one_plan(
    ranks: Ranks, rows: Mapping[int, bytes], asked: Mapping[str, str], failed: Exception | None
) -> None:
    """Return on every rank if none has failed and all ask for the same, and raise on every rank else."""
    failures = [rank for rank, row in rows.items() if row[:1] == _FAILED]
    alike = len({row[1 : 1 + _DIGEST_BYTES] for row in rows.values()}) == 1
    if not failures and alike:
        return
    if failed is not None and len(failures) == len(rows) and alike:
        raise failed
    words = "" if failed is None else f"{type(failed).__name__}: {failed}"
    said = ranks.gather(json.dumps([words, asked]).encode())
    told = {rank: json.loads(body) for rank, body in said.items()}
    outcome = f"{ranks.what} has planned nothing on any rank"
    if failures:
        raise RankFailed(outcome, {rank: told[rank][0] for rank in failures}) from failed
    differ = [name for name in asked if len({it.get(name) for _, it in told.values()}) > 1]
    each = {rank: ", ".join(f"{name} is {it.get(name)}" for name in differ) for rank, (_, it) in told.items()}
    raise RankFailed(f"{outcome}, since ranks ask for different plans", each)


def _asked(geometry: ModelGeometry, world: World, options: PlanOptions) -> dict[str, str]:
    """All that must be the same on every rank, as words. Where a model was read, and notes, may differ."""
    parts = (("the model's", geometry), ("", world), ("", options))
    return {
        f"{whose} {field.name}".strip(): _words(getattr(part, field.name))
        for whose, part in parts
        for field in dataclasses.fields(part)
        if field.compare
    }


def _words(value: object) -> str:
    """Short, and with a hash where something was left out."""
    whole = repr(value)
    short = reprlib.repr(value)
    return short if short == whole else f"{short} ({hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()})"


def _fraction() -> Fraction:
    share = settings.mem_fraction_static
    return USUAL_FRACTION if share is None else Fraction(repr(share))
