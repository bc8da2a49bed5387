"""Taking this context's overrides along: into threads, executors and other processes, which start without them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dsa_config.errors import SettingError
from dsa_config.overrides import Scope, active, entered

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.declared import Setting
    from dsa_config.layers import Given
    from dsa_config.state import State

P = ParamSpec("P")
R = TypeVar("R")


class Carried:
    """A function that runs with the scopes of the context that made it, wherever it is called.

    They are inside those of the caller. A coroutine function has them in its body, whoever awaits it.

    It can be pickled where the function can: then it takes along the values that the process and the context give,
    because another process that did not fork has neither.
    """

    def __init__(self, function: Callable[..., Any], scopes: tuple[Scope, ...], states: tuple[State, ...]) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"{function!r} is a generator function, whose body runs piece by piece wherever it is consumed: "
                f"carry the function that consumes it, or decorate it with settings.override(...)"
            )
        functools.update_wrapper(self, function, updated=())
        self._function = function
        self._scopes = scopes
        self._states = states

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function."""
        token = entered.set((*entered.get(), *self._scopes))
        try:
            result = self._function(*args, **kwargs)
        finally:
            entered.reset(token)
        return self._awaited(result) if inspect.iscoroutine(result) else result

    async def _awaited(self, body: Awaitable[Any]) -> Any:
        token = entered.set((*entered.get(), *self._scopes))
        try:
            return await body
        finally:
            entered.reset(token)

    def __reduce__(self) -> tuple[Any, ...]:
        # Scopes go to threads whatever class they are of; so they do here.
        overridden = (reader.state for scope in self._scopes for reader in scope.values)
        values = []
        for state in dict.fromkeys((*self._states, *overridden)):
            given = given_in_the_program(state, self._scopes)
            # As it was given: the parser of the other process would change a parsed value once more.
            values.append((state.cls, {name: it.given for name, it in given.items()}))
        return _arrive, (self._function, values, os.getpid())


class CarryingExecutor(Executor):
    """An executor that runs everything with the scopes of the context that submits it.

    Args:
        executor: what runs the work: threads, processes or anything else with the interface.
    """

    def __init__(self, executor: Executor, states: tuple[State, ...]) -> None:
        self._executor = executor
        self._states = states

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a function with this context's scopes."""
        return self._executor.submit(Carried(fn, entered.get(), self._states), *args, **kwargs)

    def map(self, fn: Callable[..., R], *iterables: Iterable[Any], **options: Any) -> Iterator[R]:
        """Map a function with this context's scopes. Options are the executor's: timeout, chunksize."""
        return self._executor.map(Carried(fn, entered.get(), self._states), *iterables, **options)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)


def given_in_the_program(state: State, scopes: tuple[Scope, ...] | None = None) -> dict[str, Given]:
    """What `set` gives the process and overrides give a context, by setting: what no environment carries.

    Args:
        state: of which settings.
        scopes: those of the context; of the present one if not given.
    """
    found = {}
    token = entered.set(scopes) if scopes is not None else None
    try:
        for name, reader in state.readers.items():
            given = active(reader) or reader.process
            if given is not None:
                found[name] = given
    finally:
        if token is not None:
            entered.reset(token)
    return found


def child_env(state: State, base: dict[str, str]) -> dict[str, str]:
    """An environment for a child process that gives it the values of this context.

    Args:
        state: of which settings.
        base: the environment to start from; it is not changed.

    Raises:
        SettingError: a value that no environment variable can carry.
    """
    environment = dict(base)
    carried = given_in_the_program(state)
    left = [reader for name, reader in state.readers.items() if name not in carried]
    needed = {variable for reader in left for variable in reader.setting.variables}
    for name, given in carried.items():
        setting = state.readers[name].setting
        text = text_for_child(setting, given)
        for variable in setting.variables:
            # A deprecated name would only warn, or say something else; but one that was split tells others as well.
            if variable not in needed:
                environment.pop(variable, None)
        environment[setting.variable] = text
    return environment


def text_for_child(setting: Setting, given: Given) -> str:
    """The text under which a child process reads a value.

    Raises:
        SettingError: there is none.
    """
    why = ""
    for candidate in (given.value, given.given):  # a validator may make something else of a value that it has made
        try:
            text = setting.text_of(candidate)
            if "\0" not in text and setting.parse(text) == given.value:
                return text
        except (TypeError, ValueError) as error:
            why = why or f" ({error})"
    shown = setting.masked(given.value)
    raise SettingError(
        f"{setting.name}={shown!r} cannot be given to a child process in an environment variable"
        f"{'' if setting.secret else why}"
    )


def _arrive(function: Callable[..., Any], values: list[tuple[type[LiveSettings], dict[str, Any]]], pid: int) -> Any:
    """In the other process: the function, with the values as overrides."""
    from dsa_config.live import live

    lives: list[Any] = [live(cls) for cls, _ in values]
    scopes = [it._carried_from(pid, given) for it, (_, given) in zip(lives, values, strict=True) if given]
    return Carried(function, tuple(scopes), tuple(it._state for it in lives))
