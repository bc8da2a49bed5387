"""Names in text whose language is not known for sure: values, command lines, embedded scripts, here-documents.

A place is renamed where its look leaves no doubt: an assignment, an expansion, an option that takes a variable, the
name in quotes, or the name and nothing else. Every other place is for a hand.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator

from dsa_config.tools.migrate.mapped import NOWHERE, Mapped
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.sites import WHOLE_FILE, Site, Value

NOT_UNDERSTOOD = "it stands in text that this tool does not understand"
IN_PIECES = "escapes or line ends stand within it"
ESCAPED = "it is joined to its neighbour by an escape"

_COMMENT = re.compile(r"(?:^|\s)#")
_EXPANSION = re.compile(r"\$\{?[!#]?$")
_KUBERNETES = re.compile(r"\$\($")
_ASSIGNMENT = re.compile(r"(?:^|[\s;&|(\"'`=,\[{]|(?<![\w-])-e)$")
_LITERAL = re.compile(r"=(?P<quote>\\?[\"']?)(?P<text>[\w.:/,%@+-]*)(?P=quote)(?=$|[\s;&|)\"'`\]}\\])", re.A)
_QUOTED = re.compile(r"(\\?[\"'])$")
_BUILTIN = re.compile(r"(?:^|[\s;&|(\"'])(?:export|unset|readonly|declare|typeset|local|printenv)(?:\s+[\w=-]+)*\s+$")
_OPTION = re.compile(r"(?:^|[\s\"'\[(])(?:-e|--env|--build-arg|-v)(?:\s+|=)[\"']?$|(?:^|[\s\"'])-e$")
_JOINED_BEFORE = re.compile(r"\w\\\r?\n$")
_JOINED_AFTER = re.compile(r"\\\r?\n")


def prose_sites(
    text: Mapped, names: Names, *, scope: Hashable = WHOLE_FILE, comments: bool = True, words: bool = False
) -> Iterator[Site]:
    """The sites of a text.

    Args:
        text: the text, out of the file.
        names: what to look for.
        scope: the scope of its assignments.
        comments: whether `#` starts a comment.
        words: whether the text is a list of names.
    """
    for match in names.find(text.text):
        yield site_in(text, match, scope=scope, comments=comments, words=words)


def site_in(
    text: Mapped, match: re.Match[str], *, scope: Hashable = WHOLE_FILE, comments: bool = True, words: bool = False
) -> Site:
    """What the place of one match is, by what stands before and after it."""
    name, start, end = match[0], match.start(), match.end()
    place = text.place(start, end)
    if place is None:
        return Site(name, text.near(start), "by hand", scope=scope, why=IN_PIECES)
    line_start = text.text.rfind("\n", 0, start) + 1
    line_end = text.text.find("\n", end)
    head = text.text[line_start:start]
    tail = text.text[end : line_end if line_end >= 0 else len(text.text)]
    if comments and _COMMENT.search(head):
        return Site(name, place, "leave")
    if _JOINED_BEFORE.search(text.text[max(0, start - 4) : start]) or _JOINED_AFTER.match(text.text, end):
        return Site(name, place, "by hand", scope=scope, why=ESCAPED)
    if ((tail.startswith("=") and not tail.startswith("==")) or tail.startswith("+=")) and _ASSIGNMENT.search(head):
        return Site(name, place, sets=True, value=_value(text, end), scope=scope)
    quote = _QUOTED.search(head)
    certain = (
        _EXPANSION.search(head)
        or (_KUBERNETES.search(head) and tail.startswith(")"))
        or (quote and tail.startswith(quote[1]))
        or text.text.strip() == name
        or words
        or (_BUILTIN.search(head) and re.match(r"$|[\s;&|)\"'`\\]", tail))
        or (_OPTION.search(head) and re.match(r"$|[\s\"'\]\\]", tail))
    )
    if certain:
        return Site(name, place, scope=scope)
    return Site(name, place, "by hand", scope=scope, why=NOT_UNDERSTOOD)


def _value(text: Mapped, end: int) -> Value | None:
    match = _LITERAL.match(text.text, end)
    if match is None:
        return None
    if not match["text"]:
        return Value("", NOWHERE, NOWHERE)
    place = text.place(*match.span("text"))
    return None if place is None else Value(match["text"], place, place + len(match["text"]))
