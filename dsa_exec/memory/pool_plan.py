"""What a plan says: the pools of one rank, all ranks, and the equation that led there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from dsa_exec.memory.geometry import ModelGeometry
from dsa_exec.memory.plan_layers import LayerSlice
from dsa_exec.memory.plan_options import PlanOptions
from dsa_exec.memory.plan_world import Place, World
from dsa_exec.memory.pool import Pool

__all__ = ["Plan", "Pool", "RankPlan", "Term"]


@dataclass(frozen=True, slots=True)
class Term:
    """One line of the equation.

    Attributes:
        name: what is computed.
        formula: how, in names.
        numbers: the same with the numbers in it.
        value: the result, exactly.
        unit: bytes, bytes/token, tokens, pages, requests.
    """

    name: str
    formula: str
    numbers: str
    value: Fraction
    unit: str

    @property
    def shown(self) -> str:
        """The result for people: whole, or with two decimals."""
        return str(self.value.numerator) if self.value.denominator == 1 else f"{float(self.value):.2f}"

    def __str__(self) -> str:
        """One line: `cell = kv * L + index * I = 656 * 61 + 132 * 61 = 48068 bytes/token`."""
        return f"{self.name} = {self.formula} = {self.numbers} = {self.shown} {self.unit}"


@dataclass(frozen=True, slots=True)
class RankPlan:
    """What one process holds.

    Attributes:
        place: its number, and its pp, dp, cp and tp coordinates.
        slice: the layers of its stage.
        draft_layers: draft layers that it has: all of them on the last stage, none elsewhere.
        memory_bytes: what its pools may take.
        fits_tokens: the tokens that would fit here if no other rank had less room.
        tokens: the tokens of context that its pools hold: the least that fits on any rank, whole pages.
        max_requests: requests of its group that run at once: its share of those given, or V4's estimate, or None.
        pools: its pools, those without layers left out.
        terms: the equation, line by line.
    """

    place: Place
    slice: LayerSlice
    draft_layers: int
    memory_bytes: int
    fits_tokens: int
    tokens: int
    max_requests: int | None
    pools: tuple[Pool, ...]
    terms: tuple[Term, ...]

    @property
    def bytes(self) -> int:
        """What its pools take, exactly."""
        return sum(pool.bytes for pool in self.pools)

    @property
    def free_bytes(self) -> int:
        """What its pools leave of their memory."""
        return self.memory_bytes - self.bytes

    @property
    def fixed_bytes(self) -> int:
        """What of its bytes does not grow with tokens."""
        return sum(pool.fixed_bytes for pool in self.pools)

    @property
    def padding_bytes(self) -> int:
        """What of its bytes pads pages."""
        return sum(pool.padding_bytes for pool in self.pools)

    @property
    def exact_bytes_per_token(self) -> Fraction:
        """What a token of context costs on this rank by the published formula, without padding."""
        return sum((pool.exact_bytes_per_token for pool in self.pools), Fraction(0))

    @property
    def bytes_per_token(self) -> int:
        """The same, rounded up once: in V4 it can be less than the sum of the pools' numbers, each rounded up."""
        return math.ceil(self.exact_bytes_per_token)

    def pool(self, name: str) -> Pool:
        """The pool of that name.

        Raises:
            KeyError: it has none.
        """
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class Plan:
    """What every process of a deployment holds.

    Attributes:
        geometry: the model.
        world: the processes.
        options: what was chosen.
        page_tokens: tokens a page of context.
        context_tokens: the longest context of a request: as chosen, or the model's own.
        tokens: tokens of context that every rank holds.
        ranks: each process, by number. Those of a stage differ only in their place.
        notes: what was assumed or is worth knowing, in sentences.
    """

    geometry: ModelGeometry
    world: World
    options: PlanOptions
    page_tokens: int
    context_tokens: int
    tokens: int
    ranks: tuple[RankPlan, ...]
    notes: tuple[str, ...]

    @property
    def request_tokens(self) -> int:
        """Tokens of context that one group of requests (dp) holds: its cp parts together. A request must fit in it."""
        return self.tokens * self.world.cp

    @property
    def total_tokens(self) -> int:
        """Tokens of context that the deployment holds, each counted once: all dp groups together."""
        return self.request_tokens * self.world.dp

    @property
    def total_bytes(self) -> int:
        """What the pools of all ranks take."""
        return sum(rank.bytes for rank in self.ranks)

    @property
    def stages(self) -> tuple[RankPlan, ...]:
        """One rank of each pipeline stage, the first: the others of a stage hold the same."""
        return tuple(rank for rank in self.ranks if rank.place.rank == rank.place.pp * self.world.stage_ranks)

    @property
    def limiting(self) -> RankPlan:
        """The rank that has least room, and so decides how many tokens all have; the first of them."""
        return min(self.ranks, key=lambda rank: rank.fits_tokens)

    @property
    def bytes_per_token(self) -> int:
        """What a token of context costs in all layers of the model, draft layers included, once: the stages together.

        By the published formula, without padding; rounded up once.
        """
        return math.ceil(sum((stage.exact_bytes_per_token for stage in self.stages), Fraction(0)))
