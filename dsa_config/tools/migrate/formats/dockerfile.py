"""Dockerfiles: instructions by their own rules, commands in them as shell scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.formats.shell import shell_reading
from dsa_config.tools.migrate.lines import Joining, comment_sites, line_of
from dsa_config.tools.migrate.mapped import Mapped, virtual
from dsa_config.tools.migrate.meaning import meaning_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.prose import prose_sites
from dsa_config.tools.migrate.sites import Reading, Site, Value

_ESCAPE = re.compile(r"(?:#[^\n]*\n)*?#[ \t]*escape[ \t]*=[ \t]*(?P<escape>[\\`])[ \t]*\r?$", re.I | re.M)
_INSTRUCTION = re.compile(r"\s*(?:ONBUILD\s+)?(?P<word>[A-Za-z]+)(?=\s|$)\s*", re.I)
_HEREDOC = re.compile(r"<<-?[ \t]*([\"']?)(?P<end>\w+)\1")
_OPTIONS = re.compile(r"(?:--\S+\s+)*")
_COMMANDS = {"RUN", "CMD", "ENTRYPOINT"}
_OTHERS = {
    "ADD", "ARG", "COPY", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER", "SHELL", "STOPSIGNAL", "USER",
    "VOLUME", "WORKDIR",
}  # fmt: skip


def read(text: str, names: Names) -> Reading:
    """The sites of a Dockerfile. Names that are set in one stage are one scope.

    Raises:
        Unparsable: an unknown instruction, or a command that is no shell script.
    """
    directive = _ESCAPE.match(text)
    joining = Joining(comments=("#",), escape=directive["escape"] if directive else "\\", blanks_after=True)
    sites: list[Site] = []
    meaning: list[str] = []
    at = stage = 0
    while at < len(text):
        line = joining.line(text, at)
        start, at = line.start, line.end
        if not line.text.text.strip():
            continue
        match = _INSTRUCTION.match(line.text.text)
        word = match["word"].upper() if match else ""
        if match is None or word not in _COMMANDS | _OTHERS:
            raise Unparsable(f"{line.text.text.strip()!r} is no instruction", line_of(text, start))
        rest = Mapped(line.text.text[match.end() :], line.text.places[match.end() :])
        if word in {"RUN", "COPY", "ADD"}:
            body_start = at
            for heredoc in _HEREDOC.finditer(rest.text):
                at = _end_of_heredoc(text, at, heredoc["end"], start)
            if at > body_start:
                rest = rest + virtual("\n") + Mapped.part(text, body_start, at)
        stage += word == "FROM"
        reading = _instruction(word, rest, names, stage, line_of(text, start))
        sites += reading.sites
        meaning += [word, reading.meaning]
    return Reading(sites + comment_sites(text, sites, names), meaning_of(meaning))


def _instruction(word: str, rest: Mapped, names: Names, stage: int, line: int) -> Reading:
    scope: Hashable = ("stage", stage)
    command = re.search(r"(?:^|\s)CMD\s+", rest.text) if word == "HEALTHCHECK" else None
    skipped = command.end() if command else _OPTIONS.match(rest.text).end()  # type: ignore[union-attr]
    script = Mapped(rest.text[skipped:], rest.places[skipped:])
    if (word in _COMMANDS or command) and not _is_list(script.text):
        if script.text.startswith("<<"):  # a script of its own, not the input of a command
            script = virtual("cat ") + script
        try:
            reading = shell_reading(script, names, scope=scope)
        except Unparsable as error:
            raise Unparsable(error.why, line) from None
        options = Mapped(rest.text[:skipped], rest.places[:skipped])
        return Reading([*prose_sites(options, names, scope=scope, comments=False), *reading.sites], reading.meaning)
    first = re.match(r"\w+", rest.text)
    sites = list(prose_sites(rest, names, scope=scope, comments="\n" in rest.text))
    if word in {"ENV", "ARG"}:
        sites = [_declared(site, rest, first, word) for site in sites]
    return Reading(sites, rest.text)


def _declared(site: Site, rest: Mapped, first: re.Match[str] | None, word: str) -> Site:
    """`ENV NAME value` and `ARG NAME` set the name that comes first."""
    if (site.action == "rename" and site.sets) or first is None or site.start != rest.places[0]:
        return site
    value = Mapped(rest.text[first.end() :].lstrip(), ()).text if word == "ENV" else None
    start = len(rest.text) - len(value) if value else 0
    place = rest.place(start, start + len(value.rstrip())) if value else None
    literal = None
    if value and place is not None and "$" not in value:
        literal = Value(value.rstrip(), place, place + len(value.rstrip()))
    return Site(site.name, site.start, sets=True, value=literal, scope=site.scope)


def _is_list(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except (ValueError, RecursionError):
        return False


def _end_of_heredoc(text: str, at: int, end: str, start: int) -> int:
    match = re.compile(rf"^\t*{end}[ \t]*\r?(?:\n|\Z)", re.M).search(text, at)
    if match is None:
        raise Unparsable(f"the here-document does not end with {end}", line_of(text, start))
    return match.end()
