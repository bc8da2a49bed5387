"""What ranks do that the launcher starts: `python -m multi_rank.job_cases CASE SECONDS`."""

from __future__ import annotations

import os
import sys
import time

import torch
import torch.distributed as dist

from dsa_exec.runtime.distributed import RankLost
from dsa_exec.runtime.distributed.job import is_started_by_torchrun, joined
from dsa_exec.runtime.distributed.launch import LastWords, say_last_words


def main(case: str, timeout_s: float) -> None:
    """Join, and end as the case says on rank 1, while rank 0 waits for it in a step."""
    assert is_started_by_torchrun()
    try:
        with joined("cpu", timeout_s) as job:
            assert (job.ranks, job.device) == (2, torch.device("cpu"))
            assert job.tell_all(b"from 0" if job.rank == 0 else b"from 1") == b"from 0"
            if job.rank == 1 and case == "dies":
                os._exit(7)
            if job.rank == 1 and case == "hangs":
                time.sleep(3600)
            dist.all_reduce(torch.ones(1))
            job.leave()
    except RankLost as lost:
        is_consequence = lost.waited_s < timeout_s
        say_last_words(LastWords({"text": str(lost), "waited_s": lost.waited_s}, is_consequence=is_consequence))
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
