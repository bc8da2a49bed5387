"""Scoped values: what `settings.override(...)` gives, seen by this thread or task and by what it starts, nobody else.

All state is one context variable that holds a tuple: the scopes that this context has entered, innermost last. A thread
starts with none, an asyncio task with those of its parent. Besides overrides, recordings of reads and the context of
feature flags are scopes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from types import CodeType, MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from dsa_config.layers import Given
from dsa_config.origins import CallSite, Origin

if TYPE_CHECKING:
    from dsa_config.flags.context import FlagContext
    from dsa_config.read import Reader
    from dsa_config.tracking import Recording

_Function = TypeVar("_Function", bound=Callable[..., Any])

MISSING: Any = object()


class Scope:
    """Something that holds between enter and exit, in this context.

    One object may be entered again while it is entered, by any number of threads and tasks at once.

    Attributes:
        one: the setting that it overrides, with its value, if it overrides just one: what a read looks at first.
        values: the settings that it overrides, each with its value.
        context: the feature-flag context that it makes, or None.
        recording: what notes the reads in it, or None.
    """

    __slots__ = ()

    one: tuple[Reader | None, Any] = (None, None)
    values: Mapping[Reader, Any] = MappingProxyType({})
    context: FlagContext | None = None
    recording: Recording | None = None

    def __enter__(self) -> Any:
        _enter(_entered() + (self,))  # noqa: RUF005  twice as fast as unpacking

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        scopes = _entered()
        if scopes and scopes[-1] is self:
            _enter(scopes[:-1])
            return
        # By identity, not by a token of __enter__: scopes may close in another order than they opened in, and a
        # generator's scope may close in another context than it opened in.
        for place in range(len(scopes) - 1, -1, -1):
            if scopes[place] is self:
                _enter(scopes[:place] + scopes[place + 1 :])
                return


entered: ContextVar[tuple[Scope, ...]] = ContextVar("dsa_config_scopes", default=())

_entered, _enter, _leave = entered.get, entered.set, entered.reset


class Override(Scope):
    """Values for a scope: a context manager, and a decorator for functions, coroutines and generators of both kinds."""

    __slots__ = ("_several", "_stack", "_token", "code", "given", "instruction", "one", "words")

    one: tuple[Reader | None, Any]
    _several: Mapping[Reader, Any]
    """All values, if there is not just one."""
    _stack: tuple[Scope, ...] | None
    """What the last `__enter__` made of the context's scopes, and how to go back to what they were before."""
    _token: Token[tuple[Scope, ...]] | None
    given: Mapping[str, Any]
    """What was given, by the names of the settings."""
    words: str
    code: CodeType
    """With `instruction`: the call that made it. Kept apart, because this is a hot path."""
    instruction: int

    @property
    def values(self) -> Mapping[Reader, Any]:  # type: ignore[override]  # an attribute of other scopes
        """The settings that it overrides, each with its value."""
        reader, value = self.one
        return self._several if reader is None else {reader: value}

    def __enter__(self) -> None:
        self._stack = stack = _entered() + (self,)  # noqa: RUF005  twice as fast as unpacking
        self._token = _enter(stack)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _entered() is self._stack:
            try:
                _leave(self._token)  # type: ignore[arg-type]
            except (ValueError, RuntimeError):
                pass  # entered again in between, by another thread or in a copy of this context
            else:
                self._stack = self._token = None  # they hold each other
                return
        Scope.__exit__(self, kind, error, trace)

    def origin(self) -> Origin:
        """Who made it."""
        return Origin(self.words, place=CallSite(self.code, self.instruction))

    def again(self) -> Override:
        """Another scope with the same values: one step of a generator has an identity of its own."""
        return make_override(self.values, self.given, self.words, self.code, self.instruction)

    def __call__(self, function: _Function) -> _Function:
        """Make the values hold whenever the function's body runs, and never while a generator is suspended."""
        from dsa_config.decorate import decorate

        return decorate(self, function)


class FlagScope(Scope):
    """A context for feature flags."""

    __slots__ = ("context",)

    def __init__(self, context: FlagContext) -> None:
        self.context = context


def make_override(
    values: Mapping[Reader, Any], given: Mapping[str, Any], words: str, code: CodeType, instruction: int
) -> Override:
    """An override."""
    scope = Override()
    scope.one = next(iter(values.items())) if len(values) == 1 else (None, None)
    scope._several = values
    scope.given = given
    scope.words = words
    scope.code = code
    scope.instruction = instruction
    return scope


def active(reader: Reader) -> Given | None:
    """What this context's innermost override of the setting gives, if there is one."""
    for scope in reversed(entered.get()):
        if reader in scope.values:
            assert isinstance(scope, Override)
            return Given(scope.given[reader.setting.name], scope.values[reader], scope.origin())
    return None
