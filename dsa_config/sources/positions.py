"""Where in a file a value stands. Worked out only when somebody asks, from the text that was loaded."""

from __future__ import annotations

import io
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dotenv.parser import Binding

_LINE_END = re.compile(r"\r\n|\n|\r")

Position = tuple[int, int | None]
"""Line and, where the parser gives it, column; both count from 1."""


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A key of a file. Printed as `FILE:LINE` or `FILE:LINE:COLUMN`, or as `FILE` where the key cannot be found."""

    path: str
    text: str = field(repr=False)  # it may hold secrets
    keys: tuple[str, ...]
    find: Callable[[str, Sequence[str]], Position | None]

    def __str__(self) -> str:
        position = self.find(self.text, self.keys)
        if position is None:
            return self.path
        line, column = position
        return f"{self.path}:{line}" if column is None else f"{self.path}:{line}:{column}"


def in_toml(text: str, keys: Sequence[str]) -> Position | None:
    """Where a key's line begins. tomllib tells no positions, but the shortest beginning of a file that parses and has
    the key ends with the value.
    """
    lines = text.split("\n")
    complete = 0
    for end in range(1, len(lines) + 1):
        try:
            document = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:
            continue  # within a value of several lines
        if _has(document, keys):
            return next(number for number in range(complete, end) if lines[number].strip()) + 1, None
        complete = end
    return None


def in_yaml(text: str, keys: Sequence[str]) -> Position | None:
    """Where a value begins. JSON is YAML enough for this."""
    import yaml

    try:
        node: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        node = next((value for name, value in pairs if getattr(name, "value", None) == key), None)
        if node is None:
            return None
    return node.start_mark.line + 1, node.start_mark.column + 1


def in_dotenv(text: str, keys: Sequence[str]) -> Position | None:
    """Where a variable's line begins; of one that is given twice, the last, which counts."""
    from dotenv.parser import parse_stream

    lines = [line_of(binding) for binding in parse_stream(io.StringIO(text)) if binding.key == keys[-1]]
    return (lines[-1], None) if lines else None


def line_of(binding: Binding) -> int:
    """The line of a binding of python-dotenv, which counts empty lines before it as its own."""
    text = binding.original.string
    empty = text[: len(text) - len(text.lstrip())]
    return binding.original.line + len(_LINE_END.findall(empty))


def whole_file(text: str, keys: Sequence[str]) -> Position | None:  # noqa: ARG001
    """For a file that is one value."""
    return None


def _has(document: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        if not isinstance(document, dict) or key not in document:
            return False
        document = document[key]
    return True
