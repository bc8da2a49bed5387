"""Shell scripts, by tree-sitter's grammar of bash."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Hashable
from itertools import accumulate

import tree_sitter_bash
from tree_sitter import Language, Node, Parser

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.lines import line_of
from dsa_config.tools.migrate.mapped import NOWHERE, Mapped
from dsa_config.tools.migrate.meaning import meaning_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.probe import survives
from dsa_config.tools.migrate.prose import ESCAPED, site_in
from dsa_config.tools.migrate.sites import WHOLE_FILE, Reading, Site, Value

_PLAIN = re.compile(r"[\w.:/,%@+-]*", re.A)
_JOINED_BEFORE = re.compile(r"\w['\"]+\Z", re.A)
_JOINED_AFTER = re.compile(r"['\"]+\w", re.A)
JOINED = "the shell joins it with what stands beside it, in quotes or without"


@functools.cache
def _language() -> Language:
    return Language(tree_sitter_bash.language())


def _parser() -> Parser:
    return Parser(_language())


def read(text: str, names: Names) -> Reading:
    """The sites of a shell script.

    Raises:
        Unparsable: the grammar does not take it.
    """
    return shell_reading(Mapped.part(text, 0, len(text)), names)


def shell_reading(script: Mapped, names: Names, *, scope: Hashable = WHOLE_FILE) -> Reading:
    """The sites of a script that may be a part of a file.

    Raises:
        Unparsable: the grammar does not take it.
    """
    parsed = _Parsed(script)
    return Reading([parsed.site(match, scope) for match in names.find(script.text)], parsed.meaning())


class _Parsed:
    """A script and its syntax tree, whose positions are in bytes."""

    def __init__(self, script: Mapped) -> None:
        self._script = script
        self._bytes = script.text.encode("utf-8", "surrogatepass")
        self._starts = [0, *accumulate(len(char.encode("utf-8", "surrogatepass")) for char in script.text)]
        # A parser of its own for each text, because the grammar's scanner keeps a state.
        if not survives(lambda: _parser().parse(self._bytes)):
            raise Unparsable("the grammar of bash crashes on it", 1)
        self._root = _parser().parse(self._bytes).root_node
        if self._root.has_error:
            raise Unparsable("it is no shell script that the grammar of bash takes", self._error_line())

    def _error_line(self) -> int:
        node = self._root
        while not (node.is_error or node.is_missing):
            node = next(child for child in node.children if child.has_error)
        return line_of(self._script.text, self._character(node.start_byte))

    def _character(self, byte: int) -> int:
        return bisect.bisect_left(self._starts, byte)

    def meaning(self) -> str:
        """The tree's shape, and the text of its leaves."""
        leaves: list[str] = []
        waiting = [self._root]
        while waiting:
            node = waiting.pop()
            if node.type == "comment":
                continue
            if not node.children:
                leaves.append(self._text(node))
            leaves.append(node.type)
            waiting.extend(node.children)
        return meaning_of(leaves)

    def _text(self, node: Node) -> str:
        return self._script.text[self._character(node.start_byte) : self._character(node.end_byte)]

    def site(self, match: re.Match[str], scope: Hashable) -> Site:
        start, end = self._starts[match.start()], self._starts[match.end()]
        node = self._root.descendant_for_byte_range(start, end)
        assert node is not None
        place = self._script.place(*match.span())
        if place is None:
            return site_in(self._script, match, scope=scope)
        if node.type == "comment":
            return Site(match[0], place, "leave")
        if node.type != "variable_name" and self._is_joined(node, match):
            return Site(match[0], place, "by hand", scope=scope, why=JOINED)
        if node.type != "variable_name":
            return site_in(self._script, match, scope=scope, comments=node.type.startswith("heredoc"))
        if self._text(node) != match[0] or self._bytes[end : end + 1] == b"\\":
            return Site(match[0], place, "by hand", scope=scope, why=ESCAPED)
        parent = node.parent
        if parent is not None and parent.type == "variable_assignment":
            return Site(match[0], place, sets=True, value=self._value(parent), scope=scope)
        return Site(match[0], place, scope=scope)

    def _is_joined(self, node: Node, match: re.Match[str]) -> bool:
        """Whether the name is only a part of a longer one in the word that the shell makes of quoted parts."""
        within: Node | None = node
        while within is not None and within.type != "concatenation":
            within = within.parent
        if within is None:
            return False
        before, after = _JOINED_BEFORE.search(self._script.text[: match.start()]), match.end()
        return before is not None or _JOINED_AFTER.match(self._script.text, after) is not None

    def _value(self, assignment: Node) -> Value | None:
        """The literal that is assigned; None where something is appended or expanded."""
        given = assignment.child_by_field_name("value")
        if any(child.type == "+=" for child in assignment.children):
            return None
        if given is None:
            return Value("", NOWHERE, NOWHERE)
        start, end = self._character(given.start_byte), self._character(given.end_byte)
        if given.type == "raw_string" or (
            given.type == "string" and [child.type for child in given.named_children] in ([], ["string_content"])
        ):
            start, end = start + 1, end - 1
        text = self._script.text[start:end]
        if not text:
            return Value("", NOWHERE, NOWHERE)
        place = self._script.place(start, end)
        if place is None or not _PLAIN.fullmatch(text):
            return None
        return Value(text, place, place + len(text))
