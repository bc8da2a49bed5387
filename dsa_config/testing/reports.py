"""What a test has left behind, put back and told: what it is, what it was, and how to avoid it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple

from dsa_config.declared import MASK
from dsa_config.errors import SettingError, shown
from dsa_config.live import _live_objects
from dsa_config.loading import BY_VARIABLE
from dsa_config.overrides import MISSING, Override, Scope
from dsa_config.testing.marks import Mark, Sourced, Thing, more_scopes

ADVICE = {
    "environment": "use monkeypatch.setenv",
    "set": "use the fixture settings_set, or settings.reset at the end",
    "loaded": "use the fixture settings_load",
    "context": "use `with settings.flag_context(...):`",
}


class Leak(NamedTuple):
    """One thing that a test has left behind."""

    what: str
    old: str
    new: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what} was {self.old} and is {self.new}: {self.advice}"


def leaks_between(start: Mark, end: Mark) -> list[Leak]:
    """What has changed from one mark to another, each told; everything is put back as it was at the first."""
    things = start.changes(end)
    opened, closed = more_scopes(end.scopes, start.scopes), more_scopes(start.scopes, end.scopes)
    if things or opened or closed:
        start.restore(things)
    leaks = [_of_scope(scope) for scope in opened]
    leaks += [Leak(_scope_in_words(it), "entered", "closed", "leave it to the fixture that opened it") for it in closed]
    return leaks + [_of_thing(it, start.values.get(it, MISSING), end.values.get(it, MISSING)) for it in things]


def _of_thing(thing: Thing, old: Any, new: Any) -> Leak:
    owner = f" of {thing.cls.__name__}" if thing.cls is not None else ""
    what = {
        "environment": f"environment variable {thing.name}",
        "set": f"settings.set({thing.name}=...){owner}",
        "loaded": f"what is loaded{owner}",
        "context": f"the process's flag context{owner}",
    }[thing.kind]
    return Leak(what, _in_words(thing, old), _in_words(thing, new), ADVICE[thing.kind])


def _in_words(thing: Thing, value: Any) -> str:
    if thing.kind == "loaded":
        return _sourced_in_words(value)
    if value is MISSING:
        return "not set"
    if thing.kind == "set":
        assert thing.cls is not None
        setting = _live_objects[thing.cls]._readers[thing.name].setting
        return f"{shown(setting.masked(value.value))} (from {value.origin})"
    if thing.kind == "environment" and thing.name in _secret_variables():
        return MASK
    return shown(value)


def _sourced_in_words(sourced: Any) -> str:
    if sourced is MISSING or sourced.loaded is None:
        return "nothing"
    assert isinstance(sourced, Sourced)
    named = {it.name: getattr(sourced.sources, it.name) for it in fields(sourced.sources)}
    given = ", ".join(f"{name}={shown(value)}" for name, value in named.items() if value not in (BY_VARIABLE, ()))
    files = ", ".join(map(str, sourced.loaded.files))
    return f"load({given})" + (f" of {files}" if files else "")


def _of_scope(scope: Scope) -> Leak:
    """After it has been closed: what it overrode can be read again."""
    if not isinstance(scope, Override):
        return Leak(_scope_in_words(scope), "not entered", "still entered", "enter it by `with`")
    old = ", ".join(f"{reader.setting.name}={_read(reader)}" for reader in scope.values)
    new = ", ".join(f"{it.setting.name}={shown(it.setting.masked(value))}" for it, value in scope.values.items())
    return Leak(_scope_in_words(scope), old, new, "enter it by `with`, or use the fixture settings_override")


def _read(reader: Any) -> str:
    try:
        return shown(reader.setting.masked(reader.read()))
    except SettingError:
        return "not readable"


def _scope_in_words(scope: Scope) -> str:
    if isinstance(scope, Override):
        return f"override scope (from {scope.origin()})"
    if scope.recording is not None:
        return "recording of reads"
    return f"flag context {shown(scope.context)}"


def _secret_variables() -> set[str]:
    readers = [reader for live in tuple(_live_objects.values()) for reader in live._readers.values()]
    return {name for reader in readers if reader.setting.secret for name in reader.setting.variables}
