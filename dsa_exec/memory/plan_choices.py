"""What a planner was asked for, checked against the model, with every default in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dsa_exec.core.errors import PlanError
from dsa_exec.memory import pools_mla, pools_v4
from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_checks import require_options
from dsa_exec.memory.plan_layers import LayerSlice, layer_slices
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_world import World
from dsa_exec.memory.pool import Pool
from dsa_exec.memory.pools_v4_state import estimated_requests


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage.

    Attributes:
        pp: its number.
        slice: its layers of the model.
        layers: these and its draft layers, which are numbered after the last layer of the model.
        memory_bytes: what the pools of each of its ranks may take: the least of them.
    """

    pp: int
    slice: LayerSlice
    layers: tuple[int, ...]
    memory_bytes: int

    @property
    def draft_layers(self) -> int:
        """How many draft layers it has."""
        return len(self.layers) - self.slice.local


@dataclass(frozen=True, slots=True)
class Choices:
    """All that a plan follows from. `pools` is the one function that says what a rank holds.

    Attributes:
        geometry: the model.
        world: the processes.
        options: as they came.
        page_tokens: tokens a page.
        context_tokens: the longest context of a request.
        draft_layers: draft layers that have caches, all of them on the last stage.
        stages: the pipeline stages.
        rank_bytes: what the pools of each rank may take, by its number.
    """

    geometry: ModelGeometry
    world: World
    options: PlanOptions
    page_tokens: int
    context_tokens: int
    draft_layers: int
    stages: tuple[Stage, ...]
    rank_bytes: tuple[int, ...]

    def pools(self, stage: Stage, tokens: int) -> tuple[Pool, ...]:
        """The pools of a rank of a stage that holds so many tokens of context, whole pages."""
        if not self.geometry.compressed:
            return pools_mla.mla_pools(self.geometry, stage.layers, self.options, self.page_tokens, tokens)
        requests = self.requests(tokens)
        assert requests is not None  # V4 always has a number
        return pools_v4.v4_pools(self.geometry, stage.layers, self.options, self.page_tokens, tokens, requests)

    def bytes(self, stage: Stage, tokens: int) -> int:
        """What these pools take."""
        return sum(pool.bytes for pool in self.pools(stage, tokens))

    def requests(self, tokens: int) -> int | None:
        """Requests of a group that run at once: its share of those given, rounded down, or in V4 an estimate."""
        given = self.options.max_running_requests
        if given is not None:
            return given // self.world.dp
        if not self.geometry.compressed:
            return None
        return estimated_requests(tokens * self.world.cp, self.context_tokens)


def choices_of(
    geometry: ModelGeometry, world: World, memory_bytes: int | Sequence[int], options: PlanOptions
) -> Choices:
    """Check what was asked for.

    Raises:
        PlanError: an option is out of range, or does not fit the model or the world.
        LayoutError: a format cannot hold the model's tokens.
    """
    require_options(geometry, world, options)
    page_tokens = _page_tokens(geometry, options)
    draft_layers = options.draft_layers
    if draft_layers is None:
        draft_layers = geometry.draft_layers if options.speculative else 0
    slices = layer_slices(geometry.layers, world.pp, options.stage_layers)
    draft = tuple(range(geometry.layers, geometry.layers + draft_layers))
    rank_bytes = _memory(world, memory_bytes)
    stages = tuple(
        Stage(pp, slice, (*slice.layers, *(draft if pp == world.pp - 1 else ())), min(_of_stage(world, pp, rank_bytes)))
        for pp, slice in enumerate(slices)
    )
    context_tokens = options.context_tokens or geometry.max_context_tokens
    return Choices(geometry, world, options, page_tokens, context_tokens, draft_layers, stages, rank_bytes)


def _page_tokens(geometry: ModelGeometry, options: PlanOptions) -> int:
    if not geometry.compressed:
        return options.page_tokens or pools_mla.PAGE_TOKENS
    multiple = pools_v4.page_multiple(geometry)
    if options.page_tokens is None:
        return -(-pools_v4.PAGE_TOKENS // multiple) * multiple
    if options.page_tokens % multiple:
        why = f"groups of {pools_v4.RATIO_C128} tokens are compressed and the window has {geometry.window_tokens}"
        raise PlanError("page size", options.page_tokens, f"a multiple of {multiple} tokens, because {why}")
    return options.page_tokens


def _memory(world: World, memory_bytes: int | Sequence[int]) -> tuple[int, ...]:
    """What each rank has."""
    given = list(memory_bytes) if isinstance(memory_bytes, Sequence) else [memory_bytes] * world.pp
    if len(given) not in (world.pp, world.ranks):
        wanted = f"one for each of {world.pp} stages, or one for all"
        if world.ranks > world.pp:
            wanted = f"one for each of {world.ranks} ranks, {wanted}"
        raise PlanError("memory for pools", f"{len(given)} numbers", wanted)
    unit = "stage" if len(given) == world.pp else "rank"
    for number, bytes in enumerate(given):
        if not isinstance(bytes, int) or isinstance(bytes, bool) or bytes < 1:
            where = f" in stage {number}" if unit == "stage" else f" on rank {number}"
            wanted = "a positive integer: what is left of a device after weights"
            raise PlanError(f"memory for pools{where if len(given) > 1 else ''}", bytes, wanted)
    each = world.ranks // len(given)
    return tuple(bytes for bytes in given for _ in range(each))


def _of_stage(world: World, pp: int, rank_bytes: Sequence[int]) -> Sequence[int]:
    return rank_bytes[pp * world.stage_ranks : (pp + 1) * world.stage_ranks]
