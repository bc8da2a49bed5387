"""What a contender is: a name, and a way to build the one statement that is timed for it."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Subject:
    """What is timed, and what its environment variables are.

    Attributes:
        statement: one line of Python; for a read, an expression that gives the setting's value.
        names: what the statement refers to.
        variables: the environment names that the value ought to follow, strongest first; none where asking makes
            no sense.
        around: makes the state in which the statement is timed, and takes it back.
    """

    statement: str
    names: Mapping[str, Any]
    variables: tuple[str, ...] = ()
    around: Callable[[], AbstractContextManager[object]] = field(default=nullcontext)


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table.

    Attributes:
        name: what the row is called.
        build: makes the subject; may raise ModuleNotFoundError for `library`.
        library: the top-level module of the library that the contender needs, if any.
        does: what the statement is: one read, or an override's entry with one read and its exit.
    """

    name: str
    build: Callable[[], Subject]
    library: str | None = None
    does: Literal["read", "override"] = "read"


def contenders() -> list[Contender]:
    """Every contender of every file under `contenders/`."""
    package = importlib.import_module("benchmarks.reads.contenders")
    files = sorted(found.name for found in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in files]
    return [contender for module in modules for contender in getattr(module, "CONTENDERS", ())]


@contextmanager
def environment(**texts: str | None) -> Iterator[None]:
    """Environment variables for a while; None means absent. What was there before comes back."""
    before = {name: os.environ.get(name) for name in texts}
    _put(texts)
    try:
        yield
    finally:
        _put(before)


def _put(texts: Mapping[str, str | None]) -> None:
    for name, text in texts.items():
        if text is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = text
