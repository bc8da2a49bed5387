"""Python call sites, by libcst: strings that are a name, attributes, keyword arguments, dictionary keys."""

from __future__ import annotations

import ast
from collections.abc import Hashable
from itertools import accumulate

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper, ParentNodeProvider

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.mapped import NOWHERE
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.prose import NOT_UNDERSTOOD
from dsa_config.tools.migrate.sites import WHOLE_FILE, Reading, Site, Value

OWN_NAME = "it is a name of this Python file's own"
BOTH_NAMES = "the new name stands in the same statement: decide what is meant"
_SETTERS = {"setenv", "setdefault", "putenv", "setitem", "set_key"}

_STATEMENTS = (cst.BaseSmallStatement, cst.BaseCompoundStatement, cst.Decorator)


def read(text: str, names: Names) -> Reading:
    """The sites of a Python file. Docstrings are left as they are, like comments.

    Raises:
        Unparsable: it is no Python of this version.
    """
    try:
        meaning = ast.dump(ast.parse(text))
        wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
        visitor = _Visitor(text, names)
        wrapper.visit(visitor)
    except (RecursionError, MemoryError):
        raise Unparsable("it is nested too deeply") from None
    except (SyntaxError, ValueError, cst.ParserSyntaxError) as error:  # ValueError: a null character
        line = getattr(error, "lineno", None) or getattr(error, "raw_line", None)
        raise Unparsable(" ".join(str(error).split()), line) from None
    return Reading(visitor.all_sites(), meaning)


class _Visitor(cst.CSTVisitor):
    """Collects the sites of a module."""

    METADATA_DEPENDENCIES = (ByteSpanPositionProvider, ParentNodeProvider)

    def __init__(self, text: str, names: Names) -> None:
        super().__init__()
        self._text = text
        self._names = names
        self._characters = {
            byte: at for at, byte in enumerate(accumulate((len(it.encode()) for it in text), initial=0))
        }
        self._sites: list[Site] = []
        self._members: list[Site] = []
        self._own: set[str] = set()
        self._statements: dict[int, int] = {}

    def all_sites(self) -> list[Site]:
        """The sites; attributes and keywords that bear a name of the file's own may mean that name."""
        used = {(self._statements.get(it.start), it.name) for it in self._sites if not it.sets}
        sites = [
            Site(it.name, it.start, "by hand", why=BOTH_NAMES) if self._has_new_name_beside(it, used) else it
            for it in self._sites
        ]
        return sites + [
            Site(it.name, it.start, "by hand", why=OWN_NAME) if it.name in self._own else it for it in self._members
        ]

    def _has_new_name_beside(self, site: Site, used: set[tuple[int | None, str]]) -> bool:
        """Whether a string is a part of a table of names, or of a fallback from one to the other."""
        renaming = self._names.renamings.get(site.name)
        statement = self._statements.get(site.start)
        return renaming is not None and statement is not None and (statement, renaming.new) in used

    def visit_Comment(self, node: cst.Comment) -> None:  # noqa: N802  # libcst's name
        """Comments are left as they are."""
        self._all_within(node, Site("", 0, "leave"))

    def visit_FormattedStringText(self, node: cst.FormattedStringText) -> None:  # noqa: N802  # libcst's name
        """What an f-string becomes is not known."""
        self._all_within(node, Site("", 0, "by hand", why=NOT_UNDERSTOOD))

    def visit_Name(self, node: cst.Name) -> None:  # noqa: N802  # libcst's name
        """A member of something, a keyword, or a name of the file's own."""
        if node.value not in self._names.known:
            return
        parent = self._parent(node)
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            self._members.append(Site(node.value, self._span(node)[0]))
        elif isinstance(parent, cst.Arg) and parent.keyword is node:
            scope = ("call", id(self._parent(parent)))
            value = self._literal(parent.value)
            self._members.append(Site(node.value, self._span(node)[0], sets=True, value=value, scope=scope))
        else:
            self._own.add(node.value)
            self._sites.append(Site(node.value, self._span(node)[0], "by hand", why=OWN_NAME))

    def visit_SimpleString(self, node: cst.SimpleString) -> None:  # noqa: N802  # libcst's name
        """A string that is a name is one; of any other, only a docstring needs no hand."""
        start = self._span(node)[0] + len(node.prefix) + len(node.quote)
        name = node.raw_value
        parent = self._parent(node)
        alone = not isinstance(parent, cst.ConcatenatedString | cst.BinaryOperation | cst.Attribute | cst.Expr)
        if name in self._names.known and alone:
            self._statements[start] = id(self._above(node, _STATEMENTS))
            self._sites.append(self._string(node, name, start))
        elif isinstance(parent, cst.Expr):
            self._all_within(node, Site("", 0, "leave"))
        else:
            self._all_within(node, Site("", 0, "by hand", why=NOT_UNDERSTOOD))

    def _string(self, node: cst.SimpleString, name: str, start: int) -> Site:
        parent = self._parent(node)
        if isinstance(parent, cst.DictElement) and parent.key is node:
            scope: Hashable = ("dict", id(self._parent(parent)))
            return Site(name, start, sets=True, value=self._literal(parent.value), scope=scope)
        given = self._given(parent)
        value = None if given is None else self._literal(given)
        return Site(name, start, sets=given is not None, value=value, scope=self._function(node))

    def _given(self, parent: cst.CSTNode) -> cst.BaseExpression | None:
        """What the variable named by a string is set to: `setenv(NAME, given)`, `environ[NAME] = given`."""
        above = self._parent(parent)
        if isinstance(parent, cst.Arg) and isinstance(above, cst.Call):
            called = above.func.attr if isinstance(above.func, cst.Attribute) else above.func
            after = above.args[above.args.index(parent) + 1 :]
            if isinstance(called, cst.Name) and called.value in _SETTERS and after:
                return after[0].value
        if isinstance(parent, cst.Index) and isinstance(above, cst.SubscriptElement):
            target = self._parent(self._parent(above))
            assign = self._parent(target) if isinstance(target, cst.AssignTarget) else None
            if isinstance(assign, cst.Assign):
                return assign.value
        return None

    def _literal(self, node: cst.BaseExpression) -> Value | None:
        if not isinstance(node, cst.SimpleString) or "\\" in node.raw_value:
            return None
        start = self._span(node)[0] + len(node.prefix) + len(node.quote)
        text = node.raw_value
        return Value(text, start, start + len(text)) if text else Value("", NOWHERE, NOWHERE)

    def _function(self, node: cst.CSTNode) -> Hashable:
        above = self._above(node, (cst.FunctionDef, cst.Module))
        return WHOLE_FILE if isinstance(above, cst.Module) else ("function", id(above))

    def _above(self, node: cst.CSTNode, kinds: tuple[type[cst.CSTNode], ...]) -> cst.CSTNode:
        while not isinstance(node, kinds):
            node = self._parent(node)
        return node

    def _all_within(self, node: cst.CSTNode, like: Site) -> None:
        start, end = self._span(node)
        for match in self._names.find(self._text[start:end]):
            self._sites.append(Site(match[0], start + match.start(), like.action, why=like.why))

    def _parent(self, node: cst.CSTNode) -> cst.CSTNode:
        return self.get_metadata(ParentNodeProvider, node)

    def _span(self, node: cst.CSTNode) -> tuple[int, int]:
        span = self.get_metadata(ByteSpanPositionProvider, node)
        return self._characters[span.start], self._characters[span.start + span.length]
