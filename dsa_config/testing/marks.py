"""What a test could leave behind, noted at one moment: to be compared with a later one, and put back."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

from dsa_config.live import _live_objects
from dsa_config.loading import Sources
from dsa_config.moments import TooLate
from dsa_config.overrides import MISSING, Scope, entered
from dsa_config.policy import Policy, policy_of

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.loading import Loaded
    from dsa_config.state import State


Kind = Literal["environment", "loaded", "context", "set"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order of putting back: what listeners hear of then is what they would hear without the test."""


class Thing(NamedTuple):
    """Something that has one value for the whole process: a variable, or a part of a live object's state."""

    kind: Kind
    name: str = ""
    cls: type[LiveSettings] | None = None


class Sourced(NamedTuple):
    """What is loaded, and how it was named."""

    sources: Sources
    policy: Policy
    loaded: Loaded | None

    @classmethod
    def of(cls, state: State) -> Self:
        """What is loaded now."""
        return cls(state.sources or Sources(), state.policy, state.loaded)

    def same_as(self, other: Sourced) -> bool:
        """Nothing else is loaded there than here, if perhaps by another reading."""
        return self.loaded is other.loaded or (
            self.sources == other.sources and self.policy == other.policy and self._content() == other._content()
        )

    def _content(self) -> tuple[Any, ...]:
        if self.loaded is None:
            return (), {}, type(None)
        layers = {name: [(it.source, it.given) for it in found] for name, found in self.loaded.layers.items()}
        return self.loaded.files, layers, type(self.loaded.flags)


@dataclass
class Mark:
    """The state of everything that is watched.

    Attributes:
        scopes: the scopes that the context has entered, innermost last.
        values: things that have a value; the others are unset.
    """

    scopes: tuple[Scope, ...]
    values: dict[Thing, Any]

    @classmethod
    def now(cls) -> Self:
        """The state as of now. The environment is kept whole, for classes that are declared later."""
        values: dict[Thing, Any] = {Thing("environment", name): text for name, text in os.environ.items()}
        for owner, live in tuple(_live_objects.items()):
            state = live._state
            for name, reader in state.readers.items():
                if reader.process is not None:
                    values[Thing("set", name, owner)] = reader.process
            values[Thing("loaded", "", owner)] = Sourced.of(state)
            if state._process_context is not None:
                values[Thing("context", "", owner)] = state._process_context
        return cls(entered.get(), values)

    def changes(self, later: Mark) -> list[Thing]:
        """The things that have another value later, of all that live objects look at."""
        watched = {Thing("environment", name) for name in watched_variables()}
        things = [it for it in {**self.values, **later.values} if it.kind != "environment" or it in watched]
        return [it for it in things if not self._same(it, later)]

    def follow(self, before: Mark, after: Mark) -> None:
        """Take over what has changed between two other marks: it was allowed to."""
        for thing in {**before.values, **after.values}:
            old, new = before.values.get(thing, MISSING), after.values.get(thing, MISSING)
            if new is MISSING:
                self.values.pop(thing, None)
            elif not _untouched(old, new):
                self.values[thing] = new
        kept = more_scopes(self.scopes, more_scopes(before.scopes, after.scopes))
        self.scopes = (*kept, *more_scopes(after.scopes, before.scopes))

    def _same(self, thing: Thing, later: Mark) -> bool:
        old, new = self.values.get(thing, MISSING), later.values.get(thing, MISSING)
        if old is new:
            return True
        if thing.kind == "environment":
            return bool(old == new)
        if thing.kind == "context":  # an empty one is made by the first who asks
            return bool((type(new)() if old is MISSING else old) == (type(old)() if new is MISSING else new))
        if thing.kind == "loaded":
            assert thing.cls is not None
            before = Sourced(Sources(), policy_of(thing.cls), None) if old is MISSING else old
            return before.same_as(new) or (before.loaded is None and self._loads_by_itself(thing.cls, new))
        return False

    def _loads_by_itself(self, cls: type[LiveSettings], new: Sourced) -> bool:
        """Whether the first read of a setting loads what variables name that were set all along."""
        from dsa_config.controls import control_variables

        named = any(Thing("environment", name) in self.values for name in control_variables(cls))
        return named and new.sources == Sources()

    def restore(self, things: Iterable[Thing]) -> None:
        """Give things the values that they have here, and enter and leave scopes until they are those of here."""
        for scope in reversed(more_scopes(entered.get(), self.scopes)):
            scope.__exit__(None, None, None)
        entered.set(self.scopes)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TooLate)  # to put a value back is not too late for anything
            for thing in sorted(things, key=lambda it: KINDS.index(it.kind)):
                self._restore(thing, self.values.get(thing, MISSING))

    def _restore(self, thing: Thing, old: Any) -> None:
        if thing.cls is None:
            os.environ.pop(thing.name, None)
            if old is not MISSING:
                os.environ[thing.name] = old
            return
        live = _live_objects[thing.cls]
        state = live._state
        if thing.kind == "set":
            live._give({state.readers[thing.name]: None if old is MISSING else old})
        elif thing.kind == "loaded":
            put_back(state, Sourced(Sources(), policy_of(thing.cls), None) if old is MISSING else old)
        else:
            state.set_process_context(type(state.process_context())() if old is MISSING else old)


def watched_variables() -> set[str]:
    """Every environment variable that a live object looks at."""
    from dsa_config.controls import control_variables

    return {
        name
        for cls, live in tuple(_live_objects.items())
        for reader in live._readers.values()
        for name in (*reader.setting.variables, *control_variables(cls))
    }


def more_scopes(these: tuple[Scope, ...], those: tuple[Scope, ...]) -> tuple[Scope, ...]:
    """The scopes that are entered here oftener than there."""
    rest = list(those)
    more = []
    for scope in these:
        place = next((place for place, it in enumerate(rest) if it is scope), None)
        if place is None:
            more.append(scope)
        else:
            del rest[place]
    return tuple(more)


def _untouched(old: Any, new: Any) -> bool:
    """Nobody has given it anew. Texts and tuples are made for each mark, what they hold is not."""
    if isinstance(old, Sourced) and isinstance(new, Sourced):
        return all(left is right for left, right in zip(old, new, strict=True))
    return old is new or (isinstance(old, str) and bool(old == new))


def put_back(state: State, before: Sourced) -> None:
    """Make what was loaded before be what is loaded."""
    loaded = before.loaded
    with state.lock:
        state.sources, state.policy, state.loaded = before
        for name, reader in state.readers.items():
            layers = loaded.layers.get(name, ()) if loaded is not None else ()
            flagged = loaded is not None and name in loaded.flagged
            reader.load(layers, loaded.flags if loaded is not None and flagged else None)
    if loaded is not None:  # else it is left to the next read to load
        state.note_changes(state.readers.values())
