"""What one process says of the settings that ranks must agree on, what differs between several, and what one gives all.

No process group is known here: accounts are plain data, and whoever has a way to other processes compares them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from dsa_config.carry import given_in_the_program, text_for_child
from dsa_config.errors import BadValue, raise_together
from dsa_config.layers import Given
from dsa_config.origins import Origin
from dsa_config.tracking import stable_text

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.read import Reader

VERSION = "the version of the project"
"""The entry of an account for the project's version: another one may mean something else by the same settings."""

TARGETING = "the targetingKey"
"""The entry of an account for what fractional rollouts are sticky to: it names the replica, never the rank."""


@dataclass(frozen=True, slots=True)
class Stated:
    """A value as text that is the same in every process, and where it came from."""

    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Account:
    """What one process says, by setting."""

    values: Mapping[str, Stated]

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of names and values, in hexadecimal; origins are not part of it."""
        return hashlib.sha256(json.dumps(self.texts, sort_keys=True).encode()).hexdigest()

    @property
    def texts(self) -> dict[str, str]:
        """The values without their origins."""
        return {name: stated.text for name, stated in self.values.items()}

    def to_bytes(self) -> bytes:
        """The account for another process; `of_bytes` reads it."""
        return json.dumps({name: [it.text, it.origin] for name, it in self.values.items()}).encode()

    @classmethod
    def of_bytes(cls, given: bytes) -> Self:
        """The account that `to_bytes` wrote."""
        return cls({name: Stated(*it) for name, it in json.loads(given).items()})


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A setting of which ranks have different values.

    Attributes:
        name: the setting, or `VERSION` or `TARGETING`.
        said: what was said, each with the ranks that say so; None: they have no such setting.
    """

    name: str
    said: tuple[tuple[Stated | None, tuple[int, ...]], ...]

    def __str__(self) -> str:
        told = [
            f"not known on {ranks_in_words(ranks)}"
            if stated is None
            else f"{stated.text} on {ranks_in_words(ranks)} (from {stated.origin})"
            for stated, ranks in self.said
        ]
        return f"{self.name} is {', '.join(told[:-1])} and {told[-1]}"


def account_of(of: LiveSettings) -> Account:
    """The settings that ranks must agree on, as they are now in this context, with the project's version and the flag
    context's targeting key. Settings that may differ and secrets are left out.

    Args:
        of: a live object.

    Raises:
        BadValue, BadValues, SourceError: settings that cannot be read.
        TypeError: a value that has no form outside the process.
    """
    state = _live(of)._state
    errors: list[BadValue] = []
    with state.lock:  # so that values set together are seen together
        strongest = {reader.setting: reader.layers()[0] for reader in _agreeing(of) if not reader.setting.secret}
        key = state.flag_context().targeting_key
    values = {
        VERSION: Stated(json.dumps(state.cls.project_version), "the installed package"),
        TARGETING: Stated(json.dumps(key), "the flag context"),
    }
    for setting, layer in strongest.items():
        try:
            values[setting.name] = Stated(stable_text(setting.name, layer.read()), str(layer.origin))
        except BadValue as error:
            errors.append(error)
    raise_together(errors)
    return Account(values)


def disagreements(accounts: Mapping[int, Account]) -> tuple[Disagreement, ...]:
    """What differs between accounts.

    Args:
        accounts: by rank.
    """
    found = []
    for name in dict.fromkeys(name for account in accounts.values() for name in account.values):
        said: dict[Stated | None, list[int]] = {}
        for rank, account in accounts.items():
            said.setdefault(account.values.get(name), []).append(rank)
        if len({stated and stated.text for stated in said}) > 1:
            found.append(Disagreement(name, tuple((stated, tuple(ranks)) for stated, ranks in said.items())))
    return tuple(found)


def process_values(of: LiveSettings) -> Account:
    """What `set` gives this process, of the settings that ranks must agree on; scoped overrides are no part of it.

    Args:
        of: a live object.

    Raises:
        SettingError: a value that no text says exactly, so that no other process can be given it.
    """
    given = given_in_the_program(_live(of)._state, scopes=())
    readers = {reader.setting.name: reader for reader in _agreeing(of)}
    return Account(
        {
            name: Stated(text_for_child(readers[name].setting, it), str(it.origin))
            for name, it in given.items()
            if name in readers
        }
    )


def prepared(of: LiveSettings, values: Account, sender: str) -> Callable[[], None]:
    """Check the process-wide values of another process, and change nothing yet.

    Args:
        of: a live object.
        values: what the other's `process_values` gave.
        sender: the other process, in words, for the origin of the values.

    Returns:
        A function that gives this process these values in place of all that `set` gave it, of the settings that ranks
        must agree on.

    Raises:
        UnknownSetting: no such setting.
        BadValue, BadValues: values that their settings do not take.
    """
    live = _live(of)
    taken: dict[Reader, Given] = {}
    errors: list[BadValue] = []
    for name, stated in values.values.items():
        try:
            taken |= live._parsed({name: stated.text}, Origin(f"{sender}, from {stated.origin}"))
        except BadValue as error:
            errors.append(error)
    raise_together(errors)

    def take() -> None:
        given_up = [reader for reader in _agreeing(of) if reader.process is not None and reader not in taken]
        live._give({**dict.fromkeys(given_up), **taken})

    return take


def ranks_in_words(ranks: Sequence[int]) -> str:
    """Ranks in ascending order as words: `rank 3`, `ranks 0-2, 5`."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    words = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
    return f"rank{'s' if len(ranks) > 1 else ''} {words}"


def _agreeing(of: LiveSettings) -> list[Reader]:
    return [reader for reader in _live(of)._readers.values() if not reader.setting.may_differ]


def _live(of: LiveSettings) -> Any:
    """The live object by what it is, not by the class that it is typed as."""
    return of
