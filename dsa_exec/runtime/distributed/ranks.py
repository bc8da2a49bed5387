"""The ranks of a process group, and how they tell each other something small within a time that is not exceeded.

What is said is gathered by all from all, so that every rank comes to the same end: all go on, or all get an error.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import torch

from dsa_config.agreement import ranks_in_words
from dsa_exec.core.errors import DsaError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

TIMEOUT_S = 300.0
"""How long ranks wait for each other in a step, in seconds: one that compiles its kernels is not lost."""

LONGEST_S = 86_400
"""The longest timeout, in seconds: a day. What is longer is a mistake, and backends count in small integers."""


class NoProcessGroup(DsaError, RuntimeError):
    """There is no process group to ask, or this process is not of it: `what` was called."""

    def __init__(self, what: str, why: str) -> None:
        self.what = what
        super().__init__(f"{what} needs a process group that this process is of: {why}")


class RankFailed(DsaError, RuntimeError):
    """Something that ranks do together failed on some of them: `outcome`, and `failures`, words by rank."""

    def __init__(self, outcome: str, failures: Mapping[int, str]) -> None:
        self.outcome = outcome
        self.failures = dict(failures)
        alike: dict[str, list[int]] = {}
        for rank, words in failures.items():
            alike.setdefault(words, []).append(rank)
        reasons = "; ".join(f"{ranks_in_words(ranks)}: {words}" for words, ranks in alike.items())
        super().__init__(f"{outcome}: {reasons}")


class RankLost(DsaError, RuntimeError):
    """Not all ranks answered: `what` was called, `rank` waited for `ranks` for `waited_s` seconds."""

    def __init__(self, what: str, rank: int, ranks: tuple[int, ...], waited_s: float, timeout_s: float) -> None:
        self.what = what
        self.rank = rank
        self.ranks = ranks
        self.waited_s = waited_s
        super().__init__(
            f"{what}: rank {rank} waited {waited_s:.1f} s (timeout {timeout_s:g} s) and not all of "
            f"{ranks_in_words(ranks)} answered: one has died, hangs, or has not called {what}; "
            f"end all ranks, the process group cannot be used any more"
        )


class GroupGivenUp(RankLost):
    """An earlier call lost a rank of the group: `what` was called, `because` of the first loss."""

    def __init__(self, what: str, because: RankLost) -> None:
        DsaError.__init__(
            self, f"{what}: the process group was given up, as ranks were lost in it; end all ranks ({because})"
        )
        self.what, self.because = what, because
        self.rank, self.ranks, self.waited_s = because.rank, because.ranks, because.waited_s


# Of groups that are alive. What was half done when a rank was lost, such as a cache that one rank has written and
# another has not, is not computed with: whoever goes on gets an error, and does not wait again.
_given_up: weakref.WeakKeyDictionary[object, RankLost] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of a group, for one call on each of them.

    Attributes:
        group: the process group.
        what: the call, in words.
        ranks: the ranks of the group, as the default group counts them.
        rank: this process's, likewise.
        device: where tensors must lie for the group's backend.
        timeout_s: how long all of it may take.
        begun_s: when it began, on the monotonic clock.
    """

    group: ProcessGroup
    what: str
    ranks: tuple[int, ...]
    rank: int
    device: torch.device
    timeout_s: float
    begun_s: float

    @classmethod
    def of(cls, group: ProcessGroup | None, what: str, timeout_s: float = TIMEOUT_S) -> Ranks:
        """The ranks of a group, or of the default group.

        Raises:
            NoProcessGroup: there is none, or this process is not of it.
            RankLost: an earlier call lost a rank of the group.
            ValueError: a timeout that is none.
        """
        import torch.distributed as dist

        if not 0 < timeout_s <= LONGEST_S:
            raise ValueError(f"{what}: timeout={timeout_s!r}; wanted seconds, above 0 and at most {LONGEST_S}")
        if not (dist.is_available() and dist.is_initialized()):
            raise NoProcessGroup(what, "torch.distributed.init_process_group was not called")
        if dist.get_rank(group) < 0:
            raise NoProcessGroup(what, f"rank {dist.get_rank()} is not of the group that was given")
        whole = dist.group.WORLD if group is None else group
        assert whole is not None  # it is initialised
        if (because := _given_up.get(whole)) is not None:
            raise GroupGivenUp(what, because)
        # A group may have backends for several devices; what is sent lies on the CPU wherever one of them takes that.
        on_cpu = "cpu:" in dist.get_backend_config(whole)
        device = torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device())
        ranks = tuple(dist.get_process_group_ranks(whole))
        return cls(whole, what, ranks, dist.get_rank(), device, timeout_s, time.monotonic())

    @property
    def place(self) -> int:
        """This rank's place in the group."""
        return self.ranks.index(self.rank)

    def from_now(self) -> Ranks:
        """The same ranks, whose time begins now: what each has done until now is no waiting for others."""
        return dataclasses.replace(self, begun_s=time.monotonic())

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around collectives: an error that another rank is to blame for is told as a lost rank.

        Raises:
            RankLost: not all ranks took part; the group is given up.
        """
        try:
            yield
        except RuntimeError as error:
            if not is_of_others(error):
                raise
            raise self._lost() from error

    def gather(self, said: bytes) -> dict[int, bytes]:
        """What each rank says, by rank; each may say more or less than others.

        Raises:
            RankLost: not all ranks answered in time.
        """
        sizes = {
            rank: int.from_bytes(row, "big") for rank, row in self.gather_rows(len(said).to_bytes(8, "big")).items()
        }
        longest = max(sizes.values())
        if longest == 0:
            return dict.fromkeys(sizes, b"")
        return {rank: row[: sizes[rank]] for rank, row in self.gather_rows(said.ljust(longest, b"\0")).items()}

    def gather_rows(self, row: bytes) -> dict[int, bytes]:
        """What each rank says, by rank; all say the same number of bytes.

        Raises:
            RankLost: not all ranks answered in time.
        """
        from torch.distributed import distributed_c10d

        mine = torch.frombuffer(bytearray(row), dtype=torch.uint8).to(self.device)
        every = [torch.empty_like(mine) for _ in self.ranks]
        left = timedelta(seconds=max(0.001, self.begun_s + self.timeout_s - time.monotonic()))
        options = distributed_c10d.AllgatherOptions()  # type: ignore[attr-defined]  # no name that torch exports
        options.timeout = left  # or the backend would go on for the timeout of the group, and hold up the process's end
        try:
            self.group.allgather([every], [mine], options).wait(left)
            return {rank: bytes(it.tolist()) for rank, it in zip(self.ranks, every, strict=True)}
        except RuntimeError as error:
            raise self._lost() from error

    def _lost(self) -> RankLost:
        """The error for ranks that did not answer; the group is given up."""
        words = self.what, self.rank, self.ranks, time.monotonic() - self.begun_s, self.timeout_s
        # Not the one that is raised: the frames of that one hold tensors, and the group itself.
        _given_up[self.group] = RankLost(*words)
        return RankLost(*words)


def is_of_others(error: RuntimeError) -> bool:
    """Whether a collective failed, for which this rank is not to blame."""
    import torch.distributed as dist

    if isinstance(error, dist.DistError):
        return True
    return type(error) is RuntimeError and re.search(r"\bgloo\b", str(error), re.IGNORECASE) is not None
