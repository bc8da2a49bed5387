"""TOML: tomllib judges the file, and a lexer of ours tells where its keys and values stand."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.escapes import unescaped
from dsa_config.tools.migrate.lines import comment_sites
from dsa_config.tools.migrate.mapped import Mapped
from dsa_config.tools.migrate.meaning import meaning_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.sites import Reading
from dsa_config.tools.migrate.tree import Items, Mapping, Node, Scalar, tree_sites

_TOKEN = re.compile(
    r'#[^\n]*|"{3}(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}|' + r"'{3}(?:[^']|'{1,2}(?!'))*'{3,5}"
    r"|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'|\n|[\[\]{}=,.]|[^\s\[\]{}=,.\"'#]+",
    re.S,
)


def read(text: str, names: Names) -> Reading:
    """The sites of a TOML file.

    Raises:
        Unparsable: it is no TOML.
    """
    try:
        document = tomllib.loads(text)
        sites = tree_sites(_Tables(text).roots(), names)
        return Reading(sites + comment_sites(text, sites, names), meaning_of(document))
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"\(at line (\d+), column \d+\)", str(error))
        raise Unparsable(str(error), int(line[1]) if line else None) from None
    except RecursionError:
        raise Unparsable("it is nested too deeply") from None
    except ValueError as error:  # a number with too many digits, a date that is none
        raise Unparsable(str(error)) from None


class _Tables:
    """The tables of a valid TOML text, one for each header; dotted keys are keys beside one another."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: Iterator[re.Match[str]] = (it for it in _TOKEN.finditer(text) if not it[0].startswith("#"))
        self._next: re.Match[str] | None = next(self._tokens, None)

    def roots(self) -> list[Node]:
        roots: list[Node] = []
        table = Mapping()
        roots.append(table)
        while self._next is not None:
            if self._next[0] == "\n":
                self._take()
            elif self._next[0] == "[":
                table = Mapping()
                roots += [self._header(), table]
            else:
                self._pair(table)
        return roots

    def _take(self) -> re.Match[str]:
        token, self._next = self._next, next(self._tokens, None)
        assert token is not None, "tomllib has read the text to its end"
        return token

    def _header(self) -> Mapping:
        header = Mapping()
        while self._next is not None and self._next[0] != "\n":
            token = self._take()
            if token[0] not in "[].":
                header.pairs.append((self._scalar(token), Mapping()))
        return header

    def _pair(self, table: Mapping) -> None:
        keys: list[Node] = []
        while (token := self._take())[0] != "=":
            if token[0] != ".":
                keys.append(self._scalar(token))
        table.pairs += [(key, Mapping()) for key in keys[:-1]]
        table.pairs.append((keys[-1], self._value()))

    def _value(self) -> Node:
        token = self._take()
        if token[0] == "[":
            items = Items()
            while self._blank_or("]") != "]":
                items.items.append(self._value())
            self._take()
            return items
        if token[0] == "{":
            mapping = Mapping()
            while self._blank_or("}") != "}":
                self._pair(mapping)
            self._take()
            return mapping
        end = token
        while self._next is not None and self._next[0] not in {"\n", ",", "]", "}"}:
            end = self._take()  # 1.5 and 12:00:00.5 are several tokens
        if token is end:
            return self._scalar(token)
        return Scalar(Mapped.part(self._text, token.start(), end.end()), typed=True)

    def _blank_or(self, closing: str) -> str:
        """The next token that is neither a line's end nor a comma, not taken."""
        while self._next is not None and self._next[0] in {"\n", ","}:
            self._take()
        return closing if self._next is None else self._next[0]

    def _scalar(self, token: re.Match[str]) -> Scalar:
        start, end = token.span()
        for quotes in ('"""', "'''", '"', "'"):
            if token[0].startswith(quotes):
                inner = start + len(quotes), end - len(quotes)
                return Scalar(unescaped(self._text, *inner) if quotes[0] == '"' else Mapped.part(self._text, *inner))
        return Scalar(Mapped.part(self._text, start, end), typed=True)
