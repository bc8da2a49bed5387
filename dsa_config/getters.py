"""The function behind a setting's property: all that a usual read runs, written for the state that the setting is in.

Which of a setting's names the environment has seldom changes. So the function is written anew when that does, and has
only the steps that this state needs: a look-up for a name that is set, a test for one that is not. A read that finds
another state, or another value, goes to `reader.read()`, which looks the setting up in full.
"""

from __future__ import annotations

import copy
import functools
import os
import sys
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from dsa_config.overrides import entered
from dsa_config.record import Scoped
from dsa_config.sources import env

if TYPE_CHECKING:
    from dsa_config.read import Reader

Getter = Callable[[object], Any]

FED = sys.version_info < (3, 12)
"""Whether a getter has the record as the defaults of its parameters, where they are locals without being unpacked.
From 3.12 on Python inlines a property whose function takes one argument and no other, which is worth more."""


class Shape(NamedTuple):
    """The state that a getter is fast in.

    Attributes:
        given: for each of the setting's names, strongest first, whether the environment has it.
        scoped: whether scopes may say something about the setting, so that every read asks for them.
    """

    given: tuple[bool, ...]
    scoped: Scoped


def getter_of(reader: Reader, shape: Shape) -> Getter:
    """A function of the live object that reads one setting. It is right in every state, and fast in one."""
    if reader.setting.is_mutable:
        return lambda _live: copy.deepcopy(reader.read())
    scope: dict[str, Any] = {
        "reader": reader,
        "held": env.HELD,
        "scopes": entered.get,
        "os": os,
        "environ": env.ENVIRON,
    }
    # In this package by its file name, so that a warning points past it at the line that reads.
    file = os.path.join(os.path.dirname(__file__), f"<read of {reader.setting.name}>")
    exec(compile(source_of(reader.keys, shape), file, "exec"), scope)  # noqa: S102 - our own text
    read: FunctionType = scope["read"]
    if any(shape.given):
        reader.feed(shape.given, _as_defaults(read) if FED else functools.partial(scope.__setitem__, "record"))
    return read


def _as_defaults(read: FunctionType) -> Callable[[tuple[Any, ...]], None]:
    def take(record: tuple[Any, ...]) -> None:
        read.__defaults__ = (*record, env.HELD, os, env.ENVIRON)

    return take


def source_of(keys: Sequence[Any], shape: Shape) -> str:
    """The function's text.

    `record` has the keys, the raw values and the value of the last look that found this state, or nothing that any
    environment holds; `reader.unset` has the value while no name is set, as long as that is known.
    """
    names = range(len(keys))
    tests = [
        f"held[own_{place}] is raw_{place}" if given else f"{keys[place]!r} not in held"
        for place, given in enumerate(shape.given)
    ]
    targets = ", ".join([*(f"own_{place}" for place in names), *(f"raw_{place}" for place in names), "value"])
    fed = FED and any(shape.given)
    lines = [f"def read(_live, {targets}, held, os, environ):" if fed else "def read(_live):"]
    if shape.scoped:
        lines += ["    if found := scopes():"]
        if shape.scoped == "some":
            lines += ["        of, its = found[-1].one", "        if of is reader:", "            return its"]
        lines += ["        return reader.read_in(found)"]
    lines += ["    try:"]
    if any(shape.given) and not fed:
        lines += [f"        {targets} = record"]
    lines += [
        f"        if {' and '.join(tests)} and os.environ is environ:",
        f"            return {'value' if any(shape.given) else 'reader.unset'}",
        "    except (KeyError, AttributeError):",
        "        pass  # a name is no longer set, or something else has changed",
        "    return reader.read()",
    ]
    return "\n".join(lines)
