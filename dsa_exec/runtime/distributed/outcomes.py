"""How a part of a call that ranks do each on its own went: said to all before they do the next part together.

A rank that has failed would leave the others waiting in the next collective for as long as the group allows.
"""

from __future__ import annotations

import hashlib

from dsa_exec.runtime.distributed.ranks import RankFailed, Ranks

_GOOD, _FAILED = b"\0", b"\1"


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
    said = call if error is None else f"{type(error).__name__}: {error}"
    status = _GOOD if error is None else _FAILED
    body = said.encode(errors="backslashreplace")
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
