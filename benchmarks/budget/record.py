"""What the benchmark of the budget found, as data."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Cost(_Part):
    """What a part of a call costs its caller, in microseconds.

    Attributes:
        what: the part.
        median_us: over rounds.
        p90_us: in the slowest tenth of the rounds.
        bar_us: the bar, if there is one.
        met: whether the median is within it.
    """

    what: str
    median_us: float
    p90_us: float
    bar_us: float | None = None
    met: bool = True


class Squeeze(_Part):
    """One selection with little memory left.

    Attributes:
        what: how memory was taken.
        left_bytes: what the driver said was free before the call.
        budget_bytes: what a chunk was allowed to take.
        chunk_bytes: what a chunk was planned to take at most.
        extra_bytes: the most that was allocated while the chunks were done, beyond what the caller had: inputs and the
            result are among that, what is kept from call to call is not. None where others allocate meanwhile.
        workspace_bytes: what is kept of that for the next call.
        chunks: how many there were.
        retries: how often memory ran out.
        milliseconds: what it took.
        equal: the result is that of a call with plenty of memory, to the bit.
        within: `extra_bytes` are no more than `budget_bytes`, as far as that is known.
    """

    what: str
    left_bytes: int
    budget_bytes: int
    chunk_bytes: int
    extra_bytes: int | None
    workspace_bytes: int
    chunks: int
    retries: int
    milliseconds: float
    equal: bool
    within: bool


class Growth(_Part):
    """Selections over a context that grows step by step.

    Attributes:
        contexts: tokens, of every step.
        reserved_bytes: what torch's allocator holds after each step.
        warm_up: steps that are not looked at.
        growth_bytes: how much more it holds at most after a later step than after those.
        flat: that is nothing, or one segment for small tensors.
        peak_extra_bytes: the most that was allocated beyond what was before the first step.
    """

    contexts: list[int]
    reserved_bytes: list[int]
    warm_up: int
    growth_bytes: int
    flat: bool
    peak_extra_bytes: int


class BudgetRecord(_Part):
    """One run in one process.

    Attributes:
        logits: the backend that scores, and why.
        rows, keys, heads, k: of the selections that are squeezed.
        queries_per_call: how often the driver was asked in a call of many chunks.
        costs: see `Cost`.
        squeezes: see `Squeeze`; none without a GPU.
        growth: see `Growth`; None without a GPU.
    """

    python: str
    torch: str
    device: str
    processor: str
    date: str
    rounds: int
    logits: str
    rows: int
    keys: int
    heads: int
    k: int
    queries_per_call: int
    costs: list[Cost]
    squeezes: list[Squeeze]
    growth: Growth | None

    @property
    def failures(self) -> list[str]:
        """What is not as it should be, in words."""
        found = [f"{it.what} takes {it.median_us:.1f} us, the bar is {it.bar_us:g}" for it in self.costs if not it.met]
        if self.queries_per_call > 1:
            found.append(f"the driver was asked {self.queries_per_call} times in a call")
        for it in self.squeezes:
            if not it.equal:
                found.append(f"{it.what}: another result")
            if not it.within:
                found.append(f"{it.what}: {it.extra_bytes} bytes, the budget was {it.budget_bytes}")
        if self.growth is not None and not self.growth.flat:
            found.append(f"the allocator grew by {self.growth.growth_bytes} bytes after warm-up")
        return found
