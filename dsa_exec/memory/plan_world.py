"""Which processes there are, and what each of them holds of a model and of its requests."""

from __future__ import annotations

from dataclasses import dataclass

from dsa_exec.core.errors import PlanError

MOST_RANKS = 65_536
"""More processes than any deployment has."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one process stands.

    Attributes:
        rank: its number: stages one after the other, in a stage by dp, then cp, then tp.
        pp: its pipeline stage, which says what layers it has.
        dp: its group of requests.
        cp: its part of each request's context.
        tp: its part of the attention heads. MLA has one latent for all heads, so every tp has the same pools.
    """

    rank: int
    pp: int
    dp: int
    cp: int
    tp: int


@dataclass(frozen=True, slots=True)
class World:
    """The sizes of the parallel groups, as an engine is started with them.

    A stage has `tp` processes. Data and context parallelism of attention divide them: each of the `dp` groups serves
    requests of its own, and each of its `cp` parts keeps its part of the tokens. With `tp` 1 they have nothing to
    divide, and a stage has `dp * cp` processes.

    Attributes:
        tp: processes of a stage, over which weights are split.
        pp: stages of the pipeline.
        dp: groups of requests.
        cp: parts of a request's context.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    cp: int = 1

    def __post_init__(self) -> None:
        for name in ("tp", "pp", "dp", "cp"):
            size = getattr(self, name)
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise PlanError(name, size, "an integer of at least 1")
        if self.tp > 1 and self.tp % (self.dp * self.cp):
            wanted = f"a divisor of tp={self.tp}, because attention's dp and cp groups divide a stage's tp processes"
            raise PlanError("dp * cp", self.dp * self.cp, wanted)
        if self.ranks > MOST_RANKS:
            raise PlanError("number of processes", self.ranks, f"at most {MOST_RANKS}")

    @property
    def stage_ranks(self) -> int:
        """Processes of one stage."""
        return max(self.tp, self.dp * self.cp)

    @property
    def attention_tp(self) -> int:
        """Processes that share the heads of the same tokens, and so hold the same bytes."""
        return self.stage_ranks // (self.dp * self.cp)

    @property
    def ranks(self) -> int:
        """All processes, one a device."""
        return self.pp * self.stage_ranks

    def places(self) -> tuple[Place, ...]:
        """All processes in the order of their numbers."""
        cells = (
            (pp, dp, cp, tp)
            for pp in range(self.pp)
            for dp in range(self.dp)
            for cp in range(self.cp)
            for tp in range(self.attention_tp)
        )
        return tuple(Place(rank, *cell) for rank, cell in enumerate(cells))
