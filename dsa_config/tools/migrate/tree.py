"""Documents of mappings, sequences and scalars, whatever their syntax, and what a name in each place means."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from dsa_config.tools.migrate.mapped import NOWHERE, Mapped
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.prose import IN_PIECES, prose_sites
from dsa_config.tools.migrate.sites import Site, Value

_REFERENCES = {"configMapKeyRef", "secretKeyRef"}
KEY_ELSEWHERE = "it is a key of a ConfigMap or Secret that this file does not define: rename both together"
_ITEM = re.compile(r"(?P<name>\w+)(?:=.*)?", re.S)


@dataclass(eq=False, slots=True)
class Scalar:
    """A leaf: its text, where it stands, and whether it could be a number or boolean for want of quotes."""

    text: Mapped
    typed: bool = False


@dataclass(eq=False, slots=True)
class Mapping:
    """Keys and values."""

    pairs: list[tuple[Node, Node]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Items:
    """A sequence."""

    items: list[Node] = field(default_factory=list)


Node = Scalar | Mapping | Items


def tree_sites(roots: Sequence[Node], names: Names, *, comments: bool = True) -> list[Site]:
    """The sites of a file's documents.

    Args:
        roots: the documents.
        names: what to look for.
        comments: whether `#` starts a comment inside text.
    """
    return list(_Walk(names, roots, comments).sites())


class _Walk:
    """One pass over the documents of a file; nodes that several aliases share are seen once."""

    def __init__(self, names: Names, roots: Sequence[Node], comments: bool) -> None:
        self._names = names
        self._roots = roots
        self._comments = comments
        self._seen: set[int] = set()
        self._joined: dict[int, int] = {}
        self._data_keys: set[str] = set()

    def sites(self) -> Iterator[Site]:
        nodes = list(_every_node(self._roots))
        for node in nodes:
            if isinstance(node, Mapping):
                self._note(node)
        for root in self._roots:
            yield from self._sites(root)

    def _note(self, node: Mapping) -> None:
        """Keys of ConfigMap data; and mappings that merge one another set names for the same reader."""
        for key, value in node.pairs:
            match _word(key), value:
                case (("data" | "stringData"), Mapping(pairs=pairs)):
                    self._data_keys.update(_word(it) for it, _ in pairs)
                case "<<", Mapping():
                    self._joined[self._root(value)] = self._root(node)
                case "<<", Items(items=items):
                    self._joined.update((self._root(it), self._root(node)) for it in items)

    def _root(self, node: Node) -> int:
        place = id(node)
        while self._joined.get(place, place) != place:
            place = self._joined[place]
        return place

    def _sites(self, node: Node, inside: str = "", siblings: Items | None = None) -> Iterator[Site]:
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        if isinstance(node, Scalar):
            yield from self._prose(node)
        elif isinstance(node, Items):
            for item in node.items:
                yield from self._item(item, node) if isinstance(item, Scalar) else self._sites(item, inside, node)
        else:
            for key, value in node.pairs:
                yield from self._pair(node, key, value, inside, siblings)

    def _pair(self, node: Mapping, key: Node, value: Node, inside: str, siblings: Items | None) -> Iterator[Site]:
        word = _word(key)
        if word in self._names.known:
            encoded = inside == "data" and self._is_secret()
            yield self._named(key, None if encoded else value, scope=("mapping", self._root(node)))
        elif isinstance(key, Scalar):
            yield from self._prose(key)
        else:
            yield from self._sites(key)
        if word == "name" and siblings is not None and _word(value) in self._names.known:
            self._seen.add(id(value))
            given = next((it for name, it in node.pairs if _word(name) == "value"), None)
            yield self._named(value, given, scope=("items", id(siblings)))
        elif word == "key" and inside in _REFERENCES and _word(value) in self._names.known - self._data_keys:
            self._seen.add(id(value))
            site = self._named(value, None, scope=("reference", id(value)))
            yield Site(site.name, site.start, "by hand", why=KEY_ELSEWHERE)
        else:
            yield from self._sites(value, word)

    def _is_secret(self) -> bool:
        return any(isinstance(root, Mapping) and word_of(root, "kind") == "Secret" for root in self._roots)

    def _item(self, item: Scalar, node: Items) -> Iterator[Site]:
        """An item of a list: `NAME=value` and `NAME` are environment entries."""
        match = _ITEM.fullmatch(item.text.text)
        if match is None or match["name"] not in self._names.known:
            yield from self._sites(item)
            return
        self._seen.add(id(item))
        start = match.end("name") + 1
        given = Scalar(Mapped(item.text.text[start:], item.text.places[start:]))
        name = Mapped(match["name"], item.text.places[: len(match["name"])])
        given_or_none = given if start <= len(item.text.text) else None
        yield self._named(Scalar(name), given_or_none, scope=("items", id(node)))

    def _named(self, name: Node, given: Node | None, *, scope: Hashable) -> Site:
        assert isinstance(name, Scalar)
        word = name.text.text
        place = name.text.place(0, len(word))
        if place is None:
            return Site(word, name.text.near(0), "by hand", sets=True, scope=scope, why=IN_PIECES)
        value = _literal(given) if isinstance(given, Scalar) else None
        return Site(word, place, sets=True, value=value, scope=scope)

    def _prose(self, node: Scalar) -> Iterator[Site]:
        return prose_sites(node.text, self._names, scope=("text", id(node)), comments=self._comments)


def word_of(node: Mapping, key: str) -> str:
    """The text of a mapping's entry; empty where there is none."""
    return next((_word(value) for name, value in node.pairs if _word(name) == key), "")


def _word(node: Node) -> str:
    return node.text.text if isinstance(node, Scalar) else ""


def _literal(node: Scalar) -> Value | None:
    text = node.text.text
    if not text:
        return Value("", NOWHERE, NOWHERE)
    place = node.text.place(0, len(text))
    if place is None or "$" in text or "\n" in text:
        return None
    return Value(text, place, place + len(text), node.typed)


def _every_node(roots: Sequence[Node]) -> Iterator[Node]:
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        match node:
            case Mapping(pairs=pairs):
                waiting.extend(it for pair in pairs for it in pair)
            case Items(items=items):
                waiting.extend(items)
            case _:
                pass
