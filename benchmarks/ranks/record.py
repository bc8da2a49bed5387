"""What the ranks found, as data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from dsa_exec.cli.bench_record import Figure


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RanksRow(_Part):
    """One way to do one piece of work.

    Attributes:
        work: its sizes, in words.
        way: how it is shared out; `one GPU` does all of it on each rank.
        gpus: how many took part.
        us: of the slowest rank.
        one_us: the median of one GPU, in the same run.
        least_speedup: the bar, if there is one: how many times as fast as one GPU it must be.
        wrong: what is wrong with the result; such a way is not timed.
    """

    work: str
    way: str
    gpus: int
    us: Figure | None = None
    one_us: float | None = None
    least_speedup: float | None = None
    wrong: str | None = None

    @property
    def speedup(self) -> float | None:
        """How many times as fast as one GPU."""
        return None if self.us is None or self.one_us is None else self.one_us / self.us.median_us

    @property
    def is_missed(self) -> bool:
        """Whether there is a bar, and it is missed."""
        if self.least_speedup is None:
            return False
        return self.speedup is None or self.speedup < self.least_speedup


class RanksRecord(_Part):
    """All of it, and where it was taken.

    Attributes:
        backend: of torch.distributed.
        calls: timed calls of each.
    """

    device: str
    arch: str
    torch: str
    triton: str | None
    vendors: dict[str, str]
    date: str
    gpus: int
    backend: str
    calls: int
    rows: tuple[RanksRow, ...]
