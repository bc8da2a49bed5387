"""What the benchmark of dispatch found, as data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DispatchRow(_Part):
    """One op: medians over rounds, in microseconds.

    Attributes:
        op: the op.
        backend: which was chosen.
        tensors: of its call.
        select_us: a selected call over a call of the backend's function.
        select_p90_us: the same in the slowest tenth of the rounds.
        checks_us: the public function over a selected call: what checking the arguments costs.
        met: whether `select_us` is within the bar.
    """

    op: str
    backend: str
    tensors: int
    select_us: float
    select_p90_us: float
    checks_us: float
    met: bool


class DispatchRecord(_Part):
    """One run in one process."""

    python: str
    torch: str
    device: str
    processor: str
    date: str
    rounds: int
    bar_us: float
    rows: list[DispatchRow]
