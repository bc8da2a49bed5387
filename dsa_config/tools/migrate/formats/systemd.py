"""Systemd units and drop-ins, and the unit files of podman."""

from __future__ import annotations

import re

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.lines import Joining, comment_sites, line_of
from dsa_config.tools.migrate.mapped import Mapped
from dsa_config.tools.migrate.meaning import meaning_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.prose import prose_sites
from dsa_config.tools.migrate.sites import Reading, Site

_SECTION = re.compile(r"\s*\[[^\]]+\]\s*")
_ENTRY = re.compile(r"\s*(?P<key>[\w-]+)\s*=\s*")
_LISTS_OF_NAMES = {"PassEnvironment", "UnsetEnvironment"}
_JOINING = Joining(comments=("#", ";"), joint=" ")


def read(text: str, names: Names) -> Reading:
    """The sites of a unit.

    Raises:
        Unparsable: a line that is neither a section, an entry of one, nor a comment.
    """
    sites: list[Site] = []
    meaning: list[str] = []
    in_section = False
    for line in _JOINING.lines(text):
        logical = line.text
        meaning.append(logical.text)
        if _SECTION.fullmatch(logical.text):
            in_section = True
            continue
        match = _ENTRY.match(logical.text)
        if match is None or not in_section:
            raise Unparsable(f"{logical.text.strip()!r} is no entry of a section", line_of(text, line.start))
        value = Mapped(logical.text[match.end() :], logical.places[match.end() :])
        sites += prose_sites(value, names, comments=False, words=match["key"] in _LISTS_OF_NAMES)
    return Reading(sites + comment_sites(text, sites, names, "[#;]"), meaning_of(meaning))


def environment_files(text: str) -> list[str]:
    """The files that a unit's `EnvironmentFile=` entries name, as they are written."""
    found = re.findall(r"^[ \t]*EnvironmentFile[ \t]*=[ \t]*-?([^\r\n]+)", text, re.M)
    return [name.strip().strip("\"'") for name in found]
