"""Scoped values: what `settings.override(...)` gives, seen by this thread or task and by what it starts, nobody else.

All state is one context variable holding an immutable map. A thread starts without it; an asyncio task starts with a
copy of its parent's. Each entered scope lives as long as some context can still see it, and its readers know that
much and no more: while no scope of a setting is alive, reading it costs nothing extra.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dsa_config.layers import Given

if TYPE_CHECKING:
    from dsa_config.read import Reader

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Hold:
    """One setting's value in one entered scope. Its reader is told of its beginning, and when nobody can see it."""

    __slots__ = ("beneath", "given", "reader", "scope", "value")

    def __init__(self, reader: Reader, given: Given, scope: Override, beneath: _Hold | None) -> None:
        self.reader = reader
        self.given = given
        self.value = given.value
        self.scope = scope
        self.beneath = beneath
        reader.hold(self)

    def __del__(self) -> None:
        self.reader.release(self)

    def without(self, scope: Override) -> _Hold | None:
        """The holds from here down, less the uppermost one of that scope."""
        if self.scope is scope:
            return self.beneath
        if self.beneath is None or (beneath := self.beneath.without(scope)) is self.beneath:
            return self
        return _Hold(self.reader, self.given, self.scope, beneath)


_Holds = Mapping["Reader", _Hold]
_NOTHING: _Holds = types.MappingProxyType({})
holds: ContextVar[_Holds] = ContextVar("dsa_config_overrides", default=_NOTHING)


def active(reader: Reader) -> Given | None:
    """What this context's innermost override of the setting gives, if there is one."""
    hold = holds.get().get(reader)
    return None if hold is None else hold.given


class Override:
    """Values for a scope: a context manager, and a decorator for functions, coroutines and generators of both kinds.

    One object may be entered again while it is entered, by any number of threads and tasks at once: it keeps nothing
    but the values.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Sequence[tuple[Reader, Given]]) -> None:
        self._values = values

    def __enter__(self) -> None:
        beneath = holds.get()
        opened = {reader: _Hold(reader, given, self, beneath.get(reader)) for reader, given in self._values}
        holds.set({**beneath, **opened})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        # By identity, not by the token of __enter__: scopes may close in another order than they opened in, and a
        # generator's scope may close in another context than it opened in.
        left = dict(holds.get())
        for reader, _ in self._values:
            if (top := left.pop(reader, None)) is not None and (rest := top.without(self)) is not None:
                left[reader] = rest
        holds.set(left)

    def __call__(self, function: _Function) -> _Function:
        """Make the values hold whenever the function's body runs, and never while a generator is suspended."""
        if inspect.isclass(function) or not callable(function):
            raise TypeError(f"settings.override(...) decorates functions, not {function!r}")
        if inspect.isasyncgenfunction(function):
            wrapper: Callable[..., Any] = _around_async_generator(self, function)
        elif inspect.isgeneratorfunction(function):
            wrapper = _around_generator(self, function)
        elif inspect.iscoroutinefunction(function):
            wrapper = _around_coroutine(self, function)
        else:
            wrapper = _around_function(self, function)
        return cast(_Function, functools.update_wrapper(wrapper, function))


class _BodySteps:
    """Enters a scope for each step of a generator's body, with the scopes that the body itself holds open."""

    def __init__(self, scope: Override) -> None:
        self._scope = scope
        self._opened_by_body: dict[Reader, _Hold] = {}

    def __enter__(self) -> None:
        self._outside = holds.get()
        self._scope.__enter__()
        self._ours = holds.get()
        if self._opened_by_body:
            holds.set({**self._ours, **self._opened_by_body})

    def __exit__(self, *_: object) -> None:
        now = holds.get()
        self._opened_by_body = {reader: hold for reader, hold in now.items() if hold is not self._ours.get(reader)}
        holds.set(self._outside)


def _around_function(scope: Override, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with scope:
            return function(*args, **kwargs)

    return run


def _around_coroutine(scope: Override, function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        with scope:
            return await function(*args, **kwargs)

    return run


def _around_generator(scope: Override, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        body = function(*args, **kwargs)
        step = _BodySteps(scope)
        resume: Callable[[], Any] = functools.partial(next, body)
        while True:
            try:
                with step:
                    item = resume()
            except StopIteration as end:
                return end.value
            try:
                sent = yield item
            except GeneratorExit:
                with step:
                    body.close()
                raise
            except BaseException as error:
                resume = functools.partial(body.throw, error)
            else:
                resume = functools.partial(body.send, sent)

    return run


def _around_async_generator(scope: Override, function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        body = function(*args, **kwargs)
        step = _BodySteps(scope)
        resume: Callable[[], Any] = functools.partial(anext, body)
        while True:
            try:
                with step:
                    item = await resume()
            except StopAsyncIteration:
                return
            try:
                sent = yield item
            except GeneratorExit:
                with step:
                    await body.aclose()
                raise
            except BaseException as error:
                resume = functools.partial(body.athrow, error)
            else:
                resume = functools.partial(body.asend, sent)

    return run
