"""An override as a decorator: it holds while the body runs, whatever kind of body that is."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

from dsa_config.overrides import Override, Scope, entered

_Function = TypeVar("_Function", bound=Callable[..., Any])


def decorate(scope: Override, function: _Function) -> _Function:
    """The function, with the scope around its body.

    Raises:
        TypeError: a class, or something that cannot be called.
    """
    if isinstance(function, staticmethod | classmethod):
        return cast(_Function, type(function)(decorate(scope, function.__func__)))
    if inspect.isclass(function) or not callable(function):
        raise TypeError(f"settings.override(...) decorates functions, not {function!r}")
    if inspect.isasyncgenfunction(function):
        wrapper = _async_generator(scope, function)
    elif inspect.isgeneratorfunction(function):
        wrapper = _generator(scope, function)
    elif inspect.iscoroutinefunction(function):
        wrapper = _coroutine(scope, function)
    else:
        wrapper = _plain(scope, function)
    return cast(_Function, functools.update_wrapper(wrapper, function))


def _plain(scope: Override, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        with scope:
            result = function(*args, **kwargs)
        # A wrapper around an async function or a generator function gives a body that has not run yet.
        if inspect.iscoroutine(result):
            return _coroutine(scope, lambda: result)()
        if inspect.isgenerator(result):
            return _generator(scope, lambda: result)()
        if inspect.isasyncgen(result):
            return _async_generator(scope, lambda: result)()
        if isinstance(result, contextlib.AbstractContextManager | contextlib.AbstractAsyncContextManager):
            body = getattr(result, "gen", None)
            if inspect.isgenerator(body) or inspect.isasyncgen(body):
                raise TypeError(
                    f"put settings.override(...) below the decorator that makes {function!r} a context manager"
                )
        return result

    return run


def _coroutine(scope: Override, function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        with scope:
            return await function(*args, **kwargs)

    return run


class _Step:
    """Enters a scope for one step of a generator's body after the other, with the scopes that the body left open."""

    __slots__ = ("_before", "_left_open", "_own")

    def __init__(self, scope: Override) -> None:
        self._own = scope.again()
        self._left_open: tuple[Scope, ...] = ()

    def __enter__(self) -> None:
        self._before = entered.get()
        entered.set((*self._before, self._own, *self._left_open))

    def __exit__(self, *_: object) -> None:
        now = entered.get()
        place = next((place for place, scope in enumerate(now) if scope is self._own), None)
        if place is not None:
            self._left_open = now[place + 1 :]
            entered.set(now[:place])


def _generator(scope: Override, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        body = function(*args, **kwargs)
        step = _Step(scope)
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


def _async_generator(scope: Override, function: Callable[..., Any]) -> Callable[..., Any]:
    async def run(*args: Any, **kwargs: Any) -> Any:
        body = function(*args, **kwargs)
        step = _Step(scope)
        first = _unknown_to_the_loop(body)
        resume: Callable[[], Any] = lambda: first  # noqa: E731
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


def _unknown_to_the_loop(body: Any) -> Any:
    """Ask an async generator for its first item. The event loop, which closes what is left at its end, is to know the
    wrapper alone: it would close both at once.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return body.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)
