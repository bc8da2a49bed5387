"""Dotenv files, by python-dotenv's parser."""

from __future__ import annotations

import io
import re

from dotenv.parser import parse_stream

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.lines import comment_sites, line_of
from dsa_config.tools.migrate.mapped import NOWHERE, Mapped
from dsa_config.tools.migrate.meaning import meaning_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.prose import prose_sites
from dsa_config.tools.migrate.sites import Reading, Site, Value

_KEY = re.compile(
    r"\s*(?:export[^\S\r\n]+)?(?:'(?P<quoted>[^']+)'|(?P<key>[^=\#\s]+))[^\S\r\n]*(?P<equals>=[^\S\r\n]*)?"
)
_QUOTED = re.compile(r"'(?:\\'|[^'])*'|\"(?:\\\"|[^\"])*\"")
_COMMENT = re.compile(r"(?:\s+#|[\r\n]).*", re.S)


def read(text: str, names: Names) -> Reading:
    """The sites of a dotenv file.

    Raises:
        Unparsable: a line that is neither an assignment nor a comment.
    """
    sites: list[Site] = []
    meaning: list[tuple[str, str | None]] = []
    at = 0
    for binding in parse_stream(io.StringIO(text, newline="")):
        original = binding.original.string
        if binding.error:
            raise Unparsable(f"{original.strip()!r} is no assignment", line_of(text, at))
        if binding.key is not None:
            meaning.append((binding.key, binding.value))
            sites += _binding(text, at, at + len(original), binding.value, names)
        at += len(original)
    return Reading(sites + comment_sites(text, sites, names), meaning_of(meaning))


def _binding(text: str, start: int, end: int, value: str | None, names: Names) -> list[Site]:
    match = _KEY.match(text, start, end)
    assert match is not None, "python-dotenv has found a key"
    name = "quoted" if match["quoted"] else "key"
    value_start = match.end()
    quoted = _QUOTED.match(text, value_start, end)
    if quoted is not None:
        inner = Mapped.part(text, quoted.start() + 1, quoted.end() - 1)
    else:
        comment = _COMMENT.search(text, value_start, end)
        inner = Mapped.part(text, value_start, comment.start() if comment else end)
    sites = list(prose_sites(inner, names, scope=("text", value_start), comments=False))
    if match[name] in names.known:
        literal = None
        if value is not None and "$" not in value and value == inner.text:
            literal = Value(value, *_span(inner))
        sites.append(Site(match[name], match.start(name), sets=True, value=literal))
    return sites


def _span(inner: Mapped) -> tuple[int, int]:
    return (inner.places[0], inner.places[-1] + 1) if inner.text else (NOWHERE, NOWHERE)
