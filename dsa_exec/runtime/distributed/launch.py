"""Starts the ranks of a job on this machine by torch's own launcher, that of torchrun, and says how the job ended."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

_LAST_WORDS = "LastWords: "


class LastWords(Exception):
    """What a rank says before it ends, for whoever started the job: something that JSON can carry."""

    def __init__(self, said: dict[str, Any], *, is_consequence: bool = False) -> None:
        super().__init__(json.dumps({"said": said, "is_consequence": is_consequence}))


@dataclass(frozen=True, slots=True)
class RankEnded:
    """The rank for which a job ended.

    Attributes:
        rank: its number.
        code: what it exited with; negative: the signal that ended it.
        said: its last words, if it had any.
    """

    rank: int
    code: int
    said: dict[str, Any] | None


def say_last_words(words: LastWords) -> None:
    """Leave them where the launcher looks for them, in the process of a rank that is about to exit."""
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    get_error_handler().record_exception(words)


def launch(module: str, arguments: Sequence[str], ranks: int) -> RankEnded | int | None:
    """Run a module as so many ranks, and wait for them. When one fails or a signal comes, all are ended.

    Args:
        module: to run, as `python -m` does.
        arguments: its arguments.
        ranks: how many.

    Returns:
        None if all exited with 0; the number of a signal that this process got, such as SIGINT; or the rank that was
        the first to fail, as far as that can be told.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with tempfile.TemporaryDirectory(prefix="dsa-ranks-") as folder, _torchrun_is_silent(), _handlers_are_kept():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=ranks,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.1,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except SignalException as stop:
            return int(stop.sigval)
        except ChildFailedError as failed:
            return min((_ended(rank, it) for rank, it in failed.failures.items()), key=_order)[1]
    return None


@contextlib.contextmanager
def _torchrun_is_silent() -> Iterator[None]:
    """What the launcher would log of a failure, the caller says in its own words."""
    loggers = [logging.getLogger(f"torch.distributed.{name}") for name in ("elastic", "launcher")]
    nowhere = logging.NullHandler()  # or they would go to standard error in default of any
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.propagate = False
        logger.addHandler(nowhere)
    try:
        yield
    finally:
        for logger, propagated in zip(loggers, before, strict=True):
            logger.propagate = propagated
            logger.removeHandler(nowhere)


@contextlib.contextmanager
def _handlers_are_kept() -> Iterator[None]:
    """The launcher has its own handlers for signals that end a job, and leaves them."""
    before = {it: signal.getsignal(it) for it in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)}
    try:
        yield
    finally:
        for it, handler in before.items():
            if handler is not None:  # not from Python, which cannot put it back
                signal.signal(it, handler)


def _ended(rank: int, failure: ProcessFailure) -> tuple[int, RankEnded]:
    """A failure, and how far it may be that of another's doing."""
    message: Any = failure.message
    text = message["message"] if isinstance(message, dict) else message
    if text.startswith(_LAST_WORDS):
        words = json.loads(text.removeprefix(_LAST_WORDS))
        return 2 if words["is_consequence"] else 0, RankEnded(rank, failure.exitcode, words["said"])
    return 3 if failure.exitcode == -signal.SIGTERM else 1, RankEnded(rank, failure.exitcode, None)


def _order(ended: tuple[int, RankEnded]) -> tuple[int, int]:
    return ended[0], ended[1].rank
