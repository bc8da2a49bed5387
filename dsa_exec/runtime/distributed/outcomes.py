"""How a part of a call that ranks do each on its own went: said to all before they do the next part together.

A rank that has failed would leave the others waiting in the next collective for as long as the group allows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

from dsa_exec.runtime.distributed.ranks import RankFailed, Ranks

Result = TypeVar("Result")

_GOOD, _FAILED = b"\0", b"\1"


def each_does(ranks: Ranks, work: Callable[[], tuple[Result, str]], *, is_told: bool) -> Result:
    """Do this rank's part of a call, and go on only if all ranks did theirs.

    Args:
        ranks: of the call.
        work: gives the result, and in words what all ranks must do alike.
        is_told: whether ranks tell each other; if not, an error is raised where it happens.

    Raises:
        RankFailed, RankLost: as of `share_outcome`.
    """
    error: Exception | None = None
    try:
        done = work()
    except Exception as raised:  # whatever it is: the others wait for an answer
        error = raised
    try:
        if is_told:
            share_outcome(ranks, error, "" if error is not None else done[1])
        if error is not None:
            raise error
    finally:
        error = None  # or its traceback, with this frame in it, would hold all that the work had
    return done[0]


def share_outcome(ranks: Ranks, error: Exception | None, call: str) -> None:
    """Return on every rank if all went well and make the same call, and raise on every rank else.

    Each rank sends 17 bytes: from the CPU, with a group that has a backend for it (as `init_process_group()` makes it
    if no backend is named), and the device is not waited for. With a group for NCCL alone it is.

    Args:
        ranks: of the call.
        error: what went wrong here; None if nothing did.
        call: what all ranks must say alike, in words.

    Raises:
        RankFailed: it went wrong on some rank, with words by rank; or ranks make other calls. Where it went wrong on
            every rank, each raises what it had itself.
        RankLost: not all ranks answered in time.
    """
    ranks = ranks.from_now()
    said = call if error is None else f"{type(error).__name__}: {error}"
    status = _GOOD if error is None else _FAILED
    body = said.encode(errors="backslashreplace")
    try:
        rows = ranks.gather_rows(status + hashlib.blake2b(body, digest_size=16).digest())
        if error is None and len(set(rows.values())) == 1:
            return
        failed = [rank for rank, row in rows.items() if row[:1] == _FAILED]
        if error is not None and len(failed) == len(rows):
            raise error
        told = {rank: words.decode() for rank, words in ranks.gather(body).items()}
        if failed:
            raise RankFailed(f"{ranks.what} did nothing", {rank: told[rank] for rank in failed}) from error
        raise RankFailed(f"{ranks.what} is not the same call on all ranks", told)
    finally:
        error = None
