"""Names that a setting no longer has: how each is declared, and what its text means for the setting of today."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dsa_config.errors import DeclarationError
from dsa_config.versions import Version, version_of

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings

Phase = Literal["current", "deprecated", "refused", "removed"]
"""What a deprecated name is at some version: not yet deprecated, read with a warning, an error, or without effect."""


@dataclass(frozen=True, slots=True)
class Renamed:
    """An environment name that a setting used to have: still read, never written, and reported when it is used.

    Attributes:
        name: the old name.
        since: the version that deprecated it.
        remove_in: the version from which it has no effect. It stays known for ever, and is reported when it is set.
        error_in: the version from which its use is an error; none: it goes from warning to removed.
        old_type: the type of the old name's text, where it is not the setting's: bool, int, float or str.
        convert: makes the setting's value out of the old one; raises ValueError where it has none.
        split: other settings have this old name too, each with its own part of the old meaning.
    """

    name: str
    since: str
    remove_in: str
    error_in: str | None = None
    old_type: type | None = None
    convert: Callable[[Any], Any] | None = None
    split: bool = False

    def __post_init__(self) -> None:
        _require_ordered(self)

    @property
    def names(self) -> tuple[str, ...]:
        """The old names: this one."""
        return (self.name,)


@dataclass(frozen=True, slots=True)
class Merged:
    """Several old names that together became one setting.

    Attributes:
        names: the old names.
        since, remove_in, error_in: as in `Renamed`.
        old_types: the type of each old name's text.
        convert: makes the setting's value out of the old ones, in the order of `names`; None for one that is not set.
    """

    names: tuple[str, ...]
    since: str
    remove_in: str
    old_types: tuple[type, ...]
    convert: Callable[..., Any]
    error_in: str | None = None

    def __post_init__(self) -> None:
        if len(self.names) < 2 or len(self.names) != len(self.old_types):
            raise DeclarationError(f"{self!r}: wanted two names or more, and a type for each")
        _require_ordered(self)

    @property
    def name(self) -> str:
        """The old names, in words."""
        return " and ".join(self.names)


@dataclass(frozen=True, slots=True)
class RenamedPrefix:
    """A whole prefix that the class's environment names used to have: every setting that follows the prefix has it."""

    prefix: str
    since: str
    remove_in: str
    error_in: str | None = None

    def __post_init__(self) -> None:
        _require_ordered(self)

    @property
    def name(self) -> str:
        """The prefix, in words."""
        return f"{self.prefix}*"


@dataclass(frozen=True, slots=True)
class Removed:
    """A tombstone: a name that no setting has any more, and what to do instead."""

    name: str
    removed_in: str
    instead: str

    def __post_init__(self) -> None:
        version_of(self.removed_in, self.name)

    def __str__(self) -> str:
        return f"{self.name} was removed in {self.removed_in} and has no effect: {self.instead}"


Deprecated = Renamed | Merged


def inverted(name: str, *, since: str, remove_in: str, error_in: str | None = None) -> Renamed:
    """A boolean under an old name that meant the opposite: DISABLE_X for what is now ENABLE_X."""
    return Renamed(name, since, remove_in, error_in, old_type=bool, convert=operator.not_)


def scaled(
    name: str, factor: float, *, since: str, remove_in: str, error_in: str | None = None, old_type: type = float
) -> Renamed:
    """A number under an old name that had another unit: the value is the old one times `factor`."""

    def convert(old: float) -> float:
        new = old * factor
        return int(new) if isinstance(new, float) and new.is_integer() else new

    return Renamed(name, since, remove_in, error_in, old_type=old_type, convert=convert)


def phase_of(entry: Deprecated, version: Version) -> Phase:
    """What a deprecated name is at a version."""
    if version >= version_of(entry.remove_in, entry.name):
        return "removed"
    if entry.error_in is not None and version >= version_of(entry.error_in, entry.name):
        return "refused"
    return "deprecated" if version >= version_of(entry.since, entry.name) else "current"


def with_prefix(prefixes: Sequence[RenamedPrefix], current: str, variable: str) -> list[Renamed]:
    """The old names that a variable had under old prefixes; none for one that does not follow the current prefix."""
    if not current or not variable.startswith(current):
        return []
    rest = variable.removeprefix(current)
    return [Renamed(f"{old.prefix}{rest}", old.since, old.remove_in, old.error_in) for old in prefixes]


def _require_ordered(entry: Renamed | Merged | RenamedPrefix) -> None:
    """Warning before error before removal, so that nobody meets a removal unannounced."""
    stages = [entry.since, *([entry.error_in] if entry.error_in is not None else []), entry.remove_in]
    versions = [version_of(stage, entry.name) for stage in stages]
    if versions != sorted(set(versions)):
        raise DeclarationError(f"{entry.name}: the versions {', '.join(stages)} do not follow each other")


def overdue(cls: type[LiveSettings], version: str) -> list[Deprecated | RenamedPrefix]:
    """The deprecated names of a class that are past their removal at a version: they should be tombstones by now.

    For the test suite of a project, which so fails when nobody cleared up.
    """
    from dsa_config.declared import settings_of

    entries: list[Deprecated | RenamedPrefix] = list(cls.deprecated_prefixes)
    for setting in settings_of(cls).values():
        entries += [entry for entry in setting.deprecated if entry not in entries]
    now = version_of(version, cls.__name__)
    return [entry for entry in entries if now >= version_of(entry.remove_in, entry.name)]
