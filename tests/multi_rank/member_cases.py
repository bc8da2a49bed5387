"""What a rank of `dsa run` does before it loads a model, in a group that is there already."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from multi_rank.cases import Rank

from dsa_exec.cli.run import member
from dsa_exec.cli.run.asked import Asked
from dsa_exec.cli.run.prompts import Prompt
from dsa_exec.runtime.distributed.job import Job


def as_one(rank: int, particular: Mapping[int, Rank], reading_s: float = 0) -> tuple[str, list[Prompt], bool]:
    """How joining ended, the prompts that all have, and whether this rank prints nothing.

    The first rank takes so many seconds to read prompts, and ranks wait 1 s for each other if it takes any.
    """
    particular.get(rank, Rank()).hold()
    kept = member.is_started_by_torchrun, member.joined
    member.is_started_by_torchrun, member.joined = lambda: True, _joined
    screen = sys.stdout, sys.stderr
    try:
        with member.as_member(Asked(device="cpu", rank_timeout_s=1 if reading_s else None)) as job:
            if rank == 0:
                time.sleep(reading_s)
            prompts = member.same_prompts(job, [Prompt(f"from {rank}", rank, "\ud800 text", 3)] if rank == 0 else [])
            return "", prompts, (sys.stdout, sys.stderr) != screen
    except Exception as error:
        return f"{type(error).__name__}: {error}", [], (sys.stdout, sys.stderr) != screen
    finally:
        member.is_started_by_torchrun, member.joined = kept


def threads_of_six(rank: int, variables: Mapping[str, str]) -> int:
    """How many threads a rank takes on a machine where torch alone would take six."""
    kept = dict(os.environ), torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    os.environ.update(variables)
    torch.set_num_threads(6)
    try:
        as_one(rank, {})
        return torch.get_num_threads()
    finally:
        os.environ.clear()
        os.environ.update(kept[0])
        torch.set_num_threads(kept[1])


@contextlib.contextmanager
def _joined(device_type: str, timeout_s: float) -> Iterator[Job]:
    yield Job(dist.get_rank(), dist.get_world_size(), torch.device(device_type), timeout_s)
