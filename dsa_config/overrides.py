"""Scoped values: what `settings.override(...)` gives, seen by this thread or task and by what it starts, nobody else.

All state is one context variable that holds a tuple: the scopes that this context has entered, innermost last. A thread
starts with none, an asyncio task with those of its parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from dsa_config.layers import Given

if TYPE_CHECKING:
    from dsa_config.read import Reader

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Entry:
    """One entry into a scope. Each is an object of its own, so that closing finds the right one."""

    __slots__ = ("scope", "values")

    def __init__(self, scope: Override) -> None:
        self.scope = scope
        self.values = scope.values


entered: ContextVar[tuple[Entry, ...]] = ContextVar("dsa_config_overrides", default=())


def active(reader: Reader) -> Given | None:
    """What this context's innermost override of the setting gives, if there is one."""
    for entry in reversed(entered.get()):
        if (given := entry.values.get(reader)) is not None:
            return given
    return None


class Override:
    """Values for a scope: a context manager, and a decorator for functions, coroutines and generators of both kinds.

    One object may be entered again while it is entered, by any number of threads and tasks at once: it keeps nothing
    but the values.
    """

    __slots__ = ("values",)

    def __init__(self, values: Mapping[Reader, Given]) -> None:
        self.values = values
        for reader in values:
            reader.overridable = True

    def __enter__(self) -> None:
        entered.set((*entered.get(), Entry(self)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # By identity, not by a token of __enter__: scopes may close in another order than they opened in, and a
        # generator's scope may close in another context than it opened in.
        entries = entered.get()
        for place in range(len(entries) - 1, -1, -1):
            if entries[place].scope is self:
                entered.set(entries[:place] + entries[place + 1 :])
                return

    def __call__(self, function: _Function) -> _Function:
        """Make the values hold whenever the function's body runs, and never while a generator is suspended."""
        from dsa_config.decorate import decorate

        return decorate(self, function)
