"""What the grid found, as data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from dsa_exec.cli.bench_record import Figure

MOST_BEHIND = 0.05
"""`auto` may be slower than the best single choice by this share."""

Phase = Literal["prefill", "decode"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GridRow(_Part):
    """One size.

    Attributes:
        op: the op.
        phase: prefill, or decode, which is timed as replays.
        rows: queries of a prefill, or requests.
        context: keys.
        next_n: rows of a request.
        heads: of the index, or of the attention.
        floor_us: the time that no kernel can beat.
        absent: why there are no figures.
        wrong: what is wrong with our result; such a size is not timed.
        auto: the choice that `auto` made.
        ours: by `auto`; with what it takes of memory in a prefill of the index.
        choices: by name, each backend that takes the call, that of `auto` among them.
        left_out: choices that were not timed, and why: they refuse the call, or are far too slow.
        broken: choices that failed in another way.
        peers: vendors' calls.
        absent_peers: those that did not run, and why.
    """

    op: str
    phase: Phase
    rows: int
    context: int
    next_n: int = 1
    heads: int
    floor_us: float
    absent: str | None = None
    wrong: str | None = None
    auto: str | None = None
    ours: Figure | None = None
    choices: dict[str, Figure] = {}
    left_out: dict[str, str] = {}
    broken: dict[str, str] = {}
    peers: dict[str, Figure] = {}
    absent_peers: dict[str, str] = {}

    @property
    def ratio(self) -> float | None:
        """Our time over the best peer's."""
        if self.ours is None or not self.peers:
            return None
        return self.ours.median_us / min(figure.median_us for figure in self.peers.values())

    @property
    def share_of_floor(self) -> float | None:
        """The floor over our time."""
        return None if self.ours is None else self.floor_us / self.ours.median_us

    @property
    def best(self) -> str | None:
        """The fastest single choice."""
        return min(self.choices, key=lambda name: self.choices[name].median_us) if self.choices else None

    @property
    def behind(self) -> float | None:
        """By what share `auto` is slower than the fastest single choice."""
        if self.ours is None or self.best is None:
            return None
        return self.ours.median_us / self.choices[self.best].median_us - 1

    @property
    def is_behind(self) -> bool:
        """Whether `auto` chose badly."""
        return self.behind is not None and self.behind > MOST_BEHIND


class GridRecord(_Part):
    """One run: everything in it was measured in one process on one device.

    Attributes:
        calls: the most timed calls of each; of long ones there are fewer.
        seconds: after which nothing more was measured; None for no limit.
    """

    device: str
    arch: str
    torch: str
    triton: str | None
    vendors: dict[str, str]
    date: str
    calls: int
    seconds: float | None = None
    rows: list[GridRow]
