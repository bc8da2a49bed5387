"""A job of ranks that torchrun has started, which this process joins."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch

from dsa_config.tools.c_environment import python_environment
from dsa_exec.core.errors import DsaError, RangeError
from dsa_exec.runtime.distributed.ranks import RankLost, Ranks, is_of_others

_STEP = "a step of the job"


class RanksMissing(RankLost):
    """Not all ranks have joined the job: `rank` waited for `ranks` for `waited_s` seconds."""

    def __init__(self, rank: int, ranks: tuple[int, ...], waited_s: float, timeout_s: float) -> None:
        DsaError.__init__(
            self,
            f"the ranks of the job did not all come: rank {rank} of {len(ranks)} waited {waited_s:.1f} s "
            f"(timeout {timeout_s:g} s)",
        )
        self.what, self.rank, self.ranks, self.waited_s = "joined", rank, ranks, waited_s


@dataclass(frozen=True, slots=True)
class Job:
    """This process among the ranks of a job.

    Attributes:
        rank: its number.
        ranks: how many there are.
        device: what it computes on: the GPU with its number on this machine, or the CPU.
        timeout_s: how long ranks wait for each other.
    """

    rank: int
    ranks: int
    device: torch.device
    timeout_s: float

    def tell_all(self, said: bytes, within_s: float | None = None) -> bytes:
        """What rank 0 says, on all ranks. All call it.

        Args:
            said: by rank 0; the others' is not used.
            within_s: how long ranks wait for it, in seconds; None: as long as they wait for anything.

        Raises:
            RankLost: not all ranks came in time.
        """
        return Ranks.of(None, _STEP, within_s or self.timeout_s).gather(said if self.rank == 0 else b"")[0]

    def leave(self) -> None:
        """End the groups, when all ranks are done. Not while others may be within a step, as after an interrupt."""
        import torch.distributed as dist

        dist.destroy_process_group()


def is_started_by_torchrun() -> bool:
    """Whether torchrun, or another launcher of torch, has started this process as one of a job's."""
    import torch.distributed as dist

    return dist.is_available() and dist.is_torchelastic_launched()


@contextlib.contextmanager
def joined(device_type: str, timeout_s: float) -> Iterator[Job]:
    """Join the job, and have errors of collectives within a block told as what they are. All ranks do.

    Groups talk by NCCL between GPUs and by gloo between CPUs. They go on after the block, until `leave`.

    Args:
        device_type: `cuda` or `cpu`, the same on all ranks.
        timeout_s: how long ranks wait for each other within the block, in seconds.

    Raises:
        RankLost: another rank has ended, or did not come to a collective in time.
        RanksMissing: the ranks did not all come.
        RangeError: there is no GPU for this rank.
    """
    import torch.distributed as dist

    backend = "gloo"
    device = torch.device(device_type)
    if device_type == "cuda":
        # What is small and said between steps goes from CPU to CPU, where a timeout is an error and no abort.
        backend = "cpu:gloo,cuda:nccl"
        local, gpus = dist.get_node_local_rank(), torch.cuda.device_count()
        if local >= gpus:
            there = f"is {local} on this machine, which has {gpus} GPUs"
            raise RangeError("joined", "rank", there, f"at most {gpus} ranks on it, one for each GPU")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    began_s = time.monotonic()
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except RuntimeError as error:
        if not is_of_others(error):
            raise
        told = python_environment()
        ranks = tuple(range(int(told["WORLD_SIZE"])))
        raise RanksMissing(int(told["RANK"]), ranks, time.monotonic() - began_s, timeout_s) from error
    job = Job(dist.get_rank(), dist.get_world_size(), device, timeout_s)
    try:
        yield job
    except RuntimeError as error:
        if not is_of_others(error):
            raise
        waited_s = timeout_s if "timed out" in str(error).lower() else 0.0  # or the connection was closed
        raise RankLost(_STEP, job.rank, tuple(range(job.ranks)), waited_s, timeout_s) from error
