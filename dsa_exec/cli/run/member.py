"""A run as one rank of several: its settings are those of all, and the first alone reads prompts and prints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from dsa_exec.cli.device_option import usable_device
from dsa_exec.cli.model_loading import load_model
from dsa_exec.cli.run.asked import DEVICES_OF_RANKS, LONGEST_RANK_TIMEOUT_S, RANK_TIMEOUT_S, Asked
from dsa_exec.cli.run.errors import RunError
from dsa_exec.cli.run.launched import ranks_on_this_machine, threads_are_given
from dsa_exec.cli.run.prompts import Prompt
from dsa_exec.runtime.distributed import agree
from dsa_exec.runtime.distributed.job import Job, is_started_by_torchrun, joined

if TYPE_CHECKING:
    from dsa_exec.integrations.transformers import Loaded

GRACE_S = 5
"""How many seconds the other ranks go on after Ctrl-C, so that the first can end its step and report."""


@contextlib.contextmanager
def as_member(asked: Asked) -> Iterator[Job | None]:
    """Join the job if this process is a rank of one, and have all ranks agree on their settings; None if it is alone.

    Raises:
        RanksDisagree, RankLost: not all ranks can run together.
        RunError, UnusableDevice: an option that ranks cannot have.
    """
    if not is_started_by_torchrun():
        if asked.rank_timeout_s is not None:
            raise RunError(
                f"--rank-timeout {asked.rank_timeout_s} has no effect on one process: give --nproc 2 or more, or use "
                "torchrun"
            )
        yield None
        return
    if asked.device not in DEVICES_OF_RANKS or asked.device_map is not None:
        option = f"--device {asked.device}" if asked.device_map is None else f"--device-map {asked.device_map}"
        raise RunError(f"{option}: under torchrun each process takes a device of its own; leave the option out")
    # Not asked of each GPU before it is known which one is this process's: that would take memory of the first.
    kind = "cuda" if asked.device != "cpu" and torch.cuda.is_available() else usable_device(asked.device).type
    with joined(kind, asked.rank_timeout_s or RANK_TIMEOUT_S) as job:
        if kind == "cpu" and not threads_are_given():  # or each would take as many as there are processors
            torch.set_num_threads(max(1, torch.get_num_threads() // ranks_on_this_machine(job.ranks)))
        agree(timeout=job.timeout_s)
        with contextlib.nullcontext() if job.rank == 0 else _in_background():
            yield job


def same_prompts(job: Job, prompts: list[Prompt]) -> list[Prompt]:
    """The prompts of the first rank, on all ranks. It may read them from somebody who types: that is no hang.

    Raises:
        RankLost: a rank has ended.
    """
    told = job.tell_all(json.dumps([dataclasses.asdict(it) for it in prompts]).encode(), LONGEST_RANK_TIMEOUT_S)
    return [Prompt(**it) for it in json.loads(told)]


def load_part(asked: Asked, job: Job) -> Loaded:
    """Load this rank's part of the model that was asked for.

    Raises:
        CheckpointError, NotSupported, UnusableDevice, UnusableModel: it cannot be.
    """
    loaded = load_model(asked.model, str(job.device), asked.dtype, ranks=job.ranks)
    if job.ranks == 1:
        return loaded
    heads = loaded.model.config.num_attention_heads
    note = f"split over {job.ranks} processes, each with {heads // job.ranks} of {heads} heads"
    return dataclasses.replace(loaded, notes=(*loaded.notes, note))


@contextlib.contextmanager
def _in_background() -> Iterator[None]:
    """Print nothing, and go on for a while after Ctrl-C: the first rank may need this one to end its step."""
    before = signal.signal(signal.SIGINT, _end_soon)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_soon(*_: Any) -> None:
    """Have the system end this process, wherever it then waits."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(GRACE_S)
