"""Process groups for tests: real processes over gloo that meet through a file, and run one case after another."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch.distributed as dist

from dsa_config import DSASettings, settings
from dsa_config.declared import settings_of

PATIENCE_S = 60.0
"""After this, a test that waits for a rank fails instead of hanging. Nothing that is right takes so long."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["dsa_exec.runtime.distributed", "dsa_exec.integrations.transformers", "pytest"]
)  # imported once, not once a rank


class Group:
    """Ranks that wait for cases to run.

    A case is a function of a module: it gets the rank and what `run` was given, and returns something to compare.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self.size = size
        self._pipes: list[Connection] = []
        self._processes = []
        folder.mkdir()
        for rank in range(size):
            here, there = _context.Pipe()
            process = _context.Process(target=_serve, args=(rank, size, str(folder / "store"), there), daemon=True)
            process.start()
            there.close()  # so that the end of the rank is the end of the pipe
            self._pipes.append(here)
            self._processes.append(process)

    def run(self, case: Callable[..., Any], *given: Any, without: Collection[int] = ()) -> list[Any]:
        """Run a case on all ranks, and what it returned on each; None for ranks whose answer is not waited for.

        Raises:
            TimeoutError: a rank does not answer.
        """
        for pipe in self._pipes:
            pipe.send((case, given))
        deadline = time.monotonic() + PATIENCE_S
        answers = [None if rank in without else self._answer(rank, deadline) for rank in range(self.size)]
        for answer in answers:  # once all are there: what is left unread would be taken for the next case's
            if isinstance(answer, Exception):
                raise answer
        return answers

    def _answer(self, rank: int, deadline: float) -> Any:
        if not self._pipes[rank].poll(max(0.0, deadline - time.monotonic())):
            raise TimeoutError(f"rank {rank} of {self.size} has not answered within {PATIENCE_S} s")
        return self._pipes[rank].recv()

    def close(self) -> None:
        """End the ranks, those that hang too."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.kill()
            process.join()
            process.close()


def _serve(rank: int, size: int, store: str, pipe: Connection) -> None:
    dist.init_process_group(
        "gloo", store=dist.FileStore(store, size), rank=rank, world_size=size, timeout=timedelta(seconds=PATIENCE_S)
    )
    for declared in settings_of(DSASettings).values():  # as every other test, from declared defaults
        for variable in declared.variables:
            os.environ.pop(variable, None)
    environment = dict(os.environ)
    while True:
        try:
            case, given = pipe.recv()
        except EOFError:
            return
        try:
            answer = case(rank, *given)
        except Exception as error:  # for the test to raise
            answer = RuntimeError(f"rank {rank}: {type(error).__name__}: {error}")
        os.environ.clear()
        os.environ.update(environment)
        settings.reset()
        settings.load()
        settings.set_flag_context()
        pipe.send(answer)
