"""How the fused kernel of `index_select` for Hopper is launched: parameters with measured rules of thumb."""

from __future__ import annotations

from dataclasses import dataclass

PROGRAMS = 264
"""How many programs an H100 runs at once: two on each of 132 multiprocessors."""

COLUMNS = 256
"""Columns of a program: query rows times heads."""

MOST_CANDIDATES = 4096
"""Candidates of a row that a warp holds in registers when it looks for the best."""

BETWEEN = 512
"""What a row has room for beyond k: a span of 256 keys, and as many that are kept while more keys come."""


@dataclass(frozen=True, slots=True)
class HopperLaunch:
    """Launch parameters of the kernel for Hopper.

    Attributes:
        programs: how many there are at most, each with memory for the candidates of its rows.
        capacity: candidates of a row, a multiple of 4, up to 4096.
        stages: slots of 128 keys in flight, an even number. Two programs share a multiprocessor up to 4.
    """

    programs: int
    capacity: int
    stages: int

    def refuses(self, k: int) -> str | None:
        """Why a kernel that is launched so cannot select k; None if it can."""
        if self.capacity % 4 or not 4 <= self.capacity <= MOST_CANDIDATES:
            return f"kernel_launch: capacity={self.capacity}, it is a multiple of 4 up to {MOST_CANDIDATES}"
        if self.stages < 2 or self.stages % 2 or self.programs < 1:
            return "kernel_launch: stages is an even number, and there is one of the programs at least"
        if k > self.most_selected:
            return f"k={k}, with room for {self.capacity} candidates this kernel selects up to {self.most_selected}"
        return None

    @property
    def most_selected(self) -> int:
        """The largest k."""
        return self.capacity - BETWEEN

    def groups(self, rows: int, heads: int) -> int:
        """How many groups so many rows are: a program has one at a time."""
        return -(-rows * heads // COLUMNS)

    def programs_for(self, groups: int) -> int:
        """How many programs are launched: as many as share the groups evenly."""
        rounds = -(-groups // self.programs)
        return -(-groups // max(rounds, 1))

    def candidate_bytes(self, programs: int, heads: int) -> int:
        """Bytes of the candidates of so many programs: scores and positions. A counter of 4 bytes lies behind them."""
        return programs * (COLUMNS // heads) * self.capacity * 8


def hopper_launch() -> HopperLaunch:
    """The launch parameters: candidates of 64 heads take less than 32 MiB."""
    return HopperLaunch(programs=PROGRAMS, capacity=4064, stages=4)
