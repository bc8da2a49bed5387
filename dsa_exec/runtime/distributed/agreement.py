"""Ranks that agree on their settings, and values that one of them gives to all.

Whatever a rank may stumble over on its own is said to the others, not raised before them: they would wait for it.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import TYPE_CHECKING, Literal

from dsa_config import LiveSettings, SettingError, settings
from dsa_config.agreement import Account, Disagreement, account_of, disagreements, prepared, process_values
from dsa_exec.core.errors import DsaError
from dsa_exec.runtime.distributed.ranks import RankFailed, Ranks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Policy = Literal["raise", "warn"]

TIMEOUT_S = 60.0
"""How long ranks wait for each other, in seconds, if the caller does not say."""

_GOOD, _FAILED = b"\0", b"\1"

_warned: set[str] = set()


class RanksDisagree(DsaError, RuntimeError):
    """Ranks have different values of settings that they must agree on: `disagreements`."""

    def __init__(self, found: tuple[Disagreement, ...]) -> None:
        self.disagreements = found
        super().__init__(told(found))


class RanksDisagreeWarning(UserWarning):
    """The same as a warning, where the caller wants to go on."""


def agree(
    group: ProcessGroup | None = None,
    *,
    policy: Policy = "raise",
    timeout: float = TIMEOUT_S,
    of: LiveSettings = settings,
) -> tuple[Disagreement, ...]:
    """Compare the settings of all ranks of a group, as they are now in the context of each. All ranks call it.

    Compared is what is declared as must-agree, the version of the project and the targeting key of the flag context.
    Where all ranks agree, each sends 33 bytes.

    Args:
        group: the process group; the default group if not given.
        policy: what follows from a difference: `raise` on every rank, or `warn`, once for the same difference.
        timeout: how long to wait for the other ranks, in seconds.
        of: the live object to compare.

    Returns:
        What differs, the same on every rank; nothing where all agree.

    Raises:
        RanksDisagree: ranks disagree: each setting, its values, the ranks that have each, and where those are from.
        RankFailed: settings of some rank cannot be read; on every rank.
        RankLost: not all ranks answered in time.
        NoProcessGroup: torch.distributed is not initialised, or this process is not of the group.
        ValueError: a policy or timeout that is none.
    """
    if policy not in ("raise", "warn"):
        raise ValueError(f"agree: policy={policy!r}; wanted 'raise' or 'warn'")
    ranks = Ranks.of(group, "agree()", timeout)
    status, body = _GOOD, b""
    try:
        account = account_of(of)
        body, digest = account.to_bytes(), bytes.fromhex(account.fingerprint)
    except Exception as error:  # whatever a validator or a source of the user's raises: the others wait for an answer
        status, body = _FAILED, _words(error)
        digest = hashlib.sha256(body).digest()
    rows = ranks.gather_rows(status + digest)
    if status == _GOOD and len(set(rows.values())) == 1:
        return ()
    bodies = ranks.gather(body)
    failures = {rank: bodies[rank].decode() for rank, row in rows.items() if row[:1] == _FAILED}
    if failures:
        raise RankFailed("agree() cannot compare settings", failures)
    found = disagreements({rank: Account.of_bytes(body) for rank, body in bodies.items()})
    if policy == "raise":
        raise RanksDisagree(found)
    if (words := told(found)) not in _warned:
        _warned.add(words)
        warnings.warn(words, RanksDisagreeWarning, stacklevel=2)
    return found


def broadcast_overrides(
    group: ProcessGroup | None = None,
    source: int = 0,
    *,
    timeout: float = TIMEOUT_S,
    of: LiveSettings = settings,
) -> None:
    """Give all ranks of a group what `settings.set` gives one of them. All call it, between two steps.

    Afterwards the process-wide values of settings that must agree are those of the source on every rank: a value that
    only another rank had is taken back there. Settings that may differ and scoped overrides stay as they are.

    Args:
        group: the process group; the default group if not given.
        source: whose values, as its rank within the group.
        timeout: how long to wait for the other ranks, in seconds.
        of: the live object.

    Raises:
        RankFailed: some rank refuses a value, or the source has one that cannot be sent; on every rank, and nothing has
            changed on any.
        RankLost: not all ranks answered in time. If that is while they tell each other that all values are good, some
            may have taken them and others not.
        NoProcessGroup: torch.distributed is not initialised, or this process is not of the group.
        ValueError: no such rank, or a timeout that is none.
    """
    what = "broadcast_overrides()"
    ranks = Ranks.of(group, what, timeout)
    if not 0 <= source < len(ranks.ranks):
        raise ValueError(f"{what}: source={source} is not a rank of the group; wanted 0 to {len(ranks.ranks) - 1}")
    unchanged = f"{what} has changed nothing on any rank"
    sender = ranks.ranks[source]
    said = b""
    if ranks.rank == sender:
        try:
            said = _GOOD + process_values(of).to_bytes()
        except Exception as error:  # as in agree
            said = _FAILED + _words(error)
    sent = ranks.gather(said)[sender]
    if sent[:1] == _FAILED:
        raise RankFailed(unchanged, {sender: sent[1:].decode()})
    take, refusal = None, b""
    if ranks.rank != sender:
        try:
            take = prepared(of, Account.of_bytes(sent[1:]), f"broadcast_overrides() from rank {sender}")
        except Exception as error:  # as in agree
            refusal = _words(error)
    failures = {rank: words.decode() for rank, words in ranks.gather(refusal).items() if words}
    if failures:
        raise RankFailed(unchanged, failures)
    if take is not None:
        take()


def told(found: tuple[Disagreement, ...]) -> str:
    """Differences between ranks in words."""
    if len(found) == 1:
        return f"ranks disagree: {found[0]}"
    lines = "".join(f"\n  {it}" for it in found)
    return f"ranks disagree on {len(found)} settings:{lines}"


def _words(error: Exception) -> bytes:
    told = str(error) if isinstance(error, SettingError) else f"{type(error).__name__}: {error}"
    return told.encode(errors="backslashreplace")  # the path of a file may hold what is no text
