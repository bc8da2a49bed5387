"""What a rank of `dsa run` does before it loads a model, in a group that is there already."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from multi_rank.cases import Rank

from dsa_exec.cli.run import member
from dsa_exec.cli.run.asked import Asked
from dsa_exec.cli.run.prompts import Prompt
from dsa_exec.runtime.distributed.job import Job


def as_one(rank: int, particular: Mapping[int, Rank]) -> tuple[str, list[Prompt], bool]:
    """How joining ended, the prompts that all have, and whether this rank prints nothing."""
    particular.get(rank, Rank()).hold()
    kept = member.is_started_by_torchrun, member.joined
    member.is_started_by_torchrun, member.joined = lambda: True, _joined
    screen = sys.stdout, sys.stderr
    try:
        with member.as_member(Asked(device="cpu")) as job:
            prompts = member.same_prompts(job, [Prompt(f"from {rank}", rank, "\ud800 text", 3)] if rank == 0 else [])
            return "", prompts, (sys.stdout, sys.stderr) != screen
    except Exception as error:
        return f"{type(error).__name__}: {error}", [], (sys.stdout, sys.stderr) != screen
    finally:
        member.is_started_by_torchrun, member.joined = kept


@contextlib.contextmanager
def _joined(device_type: str, timeout_s: float) -> Iterator[Job]:
    yield Job(dist.get_rank(), dist.get_world_size(), torch.device(device_type), timeout_s)
