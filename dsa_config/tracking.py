"""What was read: recordings, fingerprints of values, and guards that tell whether anything has changed since."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pydantic_core import to_jsonable_python

from dsa_config.errors import SettingError
from dsa_config.overrides import Scope

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.read import Reader
    from dsa_config.state import State


class Stale(SettingError):
    """Settings have changed since they were read for something that cannot follow: `changes`."""

    def __init__(self, what: str, changes: Iterable[Difference]) -> None:
        self.changes = tuple(changes)
        super().__init__(f"{what} is out of date: {'; '.join(map(str, self.changes))}")


class Difference(NamedTuple):
    """A setting that has another value than it had. Of a secret, the values are masked."""

    name: str
    was: Any
    now: Any
    origin: str

    def __str__(self) -> str:
        return f"{self.name} was {self.was!r} and is {self.now!r} (from {self.origin})"


class Recording(Scope):
    """Notes what is read in this context between enter and exit: `with settings.record_reads() as reads: ...`.

    Threads and executors are included where `carry` takes the context there.
    """

    __slots__ = ("_noted", "_state", "recording")

    def __init__(self, state: State) -> None:
        self.recording = self
        self._state = state
        self._noted: dict[Reader, tuple[Any, ...]] = {}

    def note(self, reader: Reader, value: Any) -> None:
        """Note one read."""
        seen = self._noted.get(reader, ())
        if value not in seen:
            self._noted[reader] = (*seen, value)

    @property
    def reads(self) -> Mapping[str, Any]:
        """The settings that were read, each with the value that was read last."""
        return {reader.setting.name: values[-1] for reader, values in self._noted.items()}

    @property
    def unstable(self) -> tuple[str, ...]:
        """Settings that were read with different values: what was built from them is of no one configuration."""
        return tuple(reader.setting.name for reader, values in self._noted.items() if len(values) > 1)

    def fingerprint(self) -> str:
        """A hash of the settings that were read and their values: a key for what was built from them."""
        return fingerprint(self._state.cls, self.reads)

    def guard(self, what: str = "what was built from these settings") -> Guard:
        """Something that tells later whether any of them has changed."""
        return Guard(self._state, self.reads, what)

    def __enter__(self) -> Self:
        self._state.record(+1)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._state.record(-1)


class Guard:
    """The values that something was built from, to be compared before it is used again.

    Attributes:
        what: what was built, in words.
        values: the settings and the values that they had.
    """

    __slots__ = ("_readers", "values", "what")

    def __init__(self, state: State, values: Mapping[str, Any], what: str) -> None:
        self.what = what
        self.values = dict(values)
        self._readers = [(state.readers[name], value) for name, value in values.items()]

    @property
    def holds(self) -> bool:
        """Nothing has changed."""
        return all(_same(reader.read(), value) for reader, value in self._readers)

    def changes(self) -> list[Difference]:
        """What has changed."""
        found = []
        for reader, was in self._readers:
            if not _same(now := reader.read(), was):
                mask = reader.setting.masked
                origin = str(reader.layers()[0].origin)
                found.append(Difference(reader.setting.name, mask(was), mask(now), origin))
        return found

    def check(self) -> None:
        """Do nothing if nothing has changed.

        Raises:
            Stale: what has changed, and from where.
        """
        if not self.holds:
            raise Stale(self.what, self.changes())


def fingerprint(cls: type[LiveSettings], values: Mapping[str, Any]) -> str:
    """A hash of settings and values that is the same in every process. Secrets are left out.

    Raises:
        TypeError: a value that has no form outside the process.
    """
    from dsa_config.declared import settings_of

    declared = settings_of(cls)
    plain = {name: _plain(name, value) for name, value in values.items() if not declared[name].secret}
    text = json.dumps([cls.__qualname__, plain], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def stable_text(name: str, value: Any) -> str:
    """A value as JSON that is the same in every process.

    Raises:
        TypeError: a value that has no form outside the process.
    """
    return json.dumps(_plain(name, value), sort_keys=True)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, set | frozenset):  # the order of a set differs between processes
        return sorted(stable_text(name, member) for member in value)
    try:
        return to_jsonable_python(value)
    except ValueError as error:
        raise TypeError(f"{name}={value!r} cannot be part of a fingerprint ({error})") from None


def _same(left: Any, right: Any) -> bool:
    return left is right or (type(left) is type(right) and bool(left == right))
