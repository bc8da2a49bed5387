"""A job of ranks that torchrun has started, which this process joins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch

from dsa_exec.core.errors import RangeError
from dsa_exec.runtime.distributed.ranks import NoProcessGroup, RankLost, Ranks

_STEP = "a step of the job"


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

    def tell_all(self, said: bytes) -> bytes:
        """What rank 0 says, on all ranks. All call it.

        Raises:
            RankLost: not all ranks came in time.
        """
        return Ranks.of(None, _STEP, self.timeout_s).gather(said if self.rank == 0 else b"")[0]

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
        NoProcessGroup: the ranks did not all come.
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
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        raise NoProcessGroup("the job", f"its ranks did not all come within {timeout_s:g} s") from error
    job = Job(dist.get_rank(), dist.get_world_size(), device, timeout_s)
    try:
        yield job
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        waited_s = timeout_s if "timed out" in str(error).lower() else 0.0  # or the connection was closed
        raise RankLost(_STEP, job.rank, tuple(range(job.ranks)), waited_s, timeout_s) from error


def _is_of_others(error: RuntimeError) -> bool:
    """Whether a collective failed, for which this rank is not to blame."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or (type(error) is RuntimeError and "gloo" in str(error).lower())
