"""What a call takes of the device's memory beyond what its caller has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dsa_exec.core.out_of_memory import release_memory

MIB = 2**20


def extra_mib(run: Callable[[Any], Any], argument: Any) -> float:
    """The most that a call allocates at once, its result and what is kept for the next call included, in MiB.

    Args:
        run: what is called.
        argument: on what; compiled and warmed up before, since that may allocate too.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.synchronize()
    release_memory(device)  # what an earlier call kept would be missing here
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = run(argument)
    torch.cuda.synchronize()
    del result
    return (torch.cuda.max_memory_allocated() - before) / MIB
