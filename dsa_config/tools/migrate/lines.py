"""Logical lines: what a backslash at the end of a line joins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dsa_config.tools.migrate.mapped import EMPTY, Mapped, virtual
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.sites import Site

_LINE = re.compile(r"[^\n]*(?:\n|\Z)")


@dataclass(frozen=True, slots=True)
class Line:
    """A logical line: its text without line ends, where it starts, and where it ends in the file."""

    text: Mapped
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Joining:
    """How a format joins lines.

    Attributes:
        comments: what a comment line starts with; such lines may also stand between joined ones.
        joint: what joined lines have between them.
        escape: what joins a line to the next.
        blanks_after: blanks may follow the escape.
    """

    comments: tuple[str, ...]
    joint: str = ""
    escape: str = "\\"
    blanks_after: bool = False

    def line(self, source: str, at: int) -> Line:
        """The logical line that starts at a place; its text is empty for a comment."""
        start, text, joined = at, EMPTY, True
        while joined and at < len(source):
            match = _LINE.match(source, at)
            assert match is not None
            at = match.end()
            content = match[0].rstrip("\r\n")
            if content.lstrip().startswith(self.comments):
                joined = bool(text.text)
                continue
            body = content.rstrip(" \t") if self.blanks_after else content
            joined = body.endswith(self.escape)
            if not joined:
                body = content
            piece = Mapped.part(source, match.start(), match.start() + len(body) - joined * len(self.escape))
            text = text + piece + virtual(self.joint if joined else "")
        return Line(text, start, at)

    def lines(self, source: str) -> Iterator[Line]:
        """The logical lines of a file that are neither blank nor comments."""
        at = 0
        while at < len(source):
            line = self.line(source, at)
            at = line.end
            if line.text.text.strip():
                yield line


def line_of(source: str, place: int) -> int:
    """The number of the line that a place is in, from 1."""
    return source.count("\n", 0, place) + 1


def comment_sites(source: str, sites: Sequence[Site], names: Names, marks: str = "#") -> list[Site]:
    """Sites to leave, for names in comments that are not among the sites already; `marks` is a regular expression."""
    known = {site.start for site in sites}
    comment = re.compile(rf"(?:^|\s)(?:{marks})")
    left = []
    for match in names.find(source):
        head = source[source.rfind("\n", 0, match.start()) + 1 : match.start()]
        if match.start() not in known and comment.search(head):
            left.append(Site(match[0], match.start(), "leave"))
    return left
