"""Where a value came from: enough to find the line or the variable again."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Protocol

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


@dataclass(frozen=True, slots=True)
class CallSite:
    """A place in the code, kept as code object and instruction; the line is worked out only when it is printed."""

    code: CodeType
    instruction: int

    def __str__(self) -> str:
        line = self.code.co_firstlineno
        for start, end, number in self.code.co_lines():
            if start <= self.instruction < end and number is not None:
                line = number
        return f"{self.code.co_filename}:{line}"


class Place(Protocol):
    """A line of a file or of code that is worked out only when it is printed."""

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Origin:
    """What gave a value: the words, the variable if there is one, the line of code or of a file if there is one."""

    words: str
    variable: str | None = None
    place: Place | None = None

    def __str__(self) -> str:
        return self.words if self.place is None else f"{self.words} at {self.place}"


def outside_caller() -> tuple[FrameType, int]:
    """The nearest frame outside this package, and how many frames up it is (1 = our caller)."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    return frame, level


def caller_site(beyond: Collection[str] = ()) -> CallSite:
    """The call site nearest outside this package, and outside these packages if it is called from one of them."""
    frame, _ = outside_caller()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in beyond:
        frame = frame.f_back
    return CallSite(frame.f_code, frame.f_lasti)
