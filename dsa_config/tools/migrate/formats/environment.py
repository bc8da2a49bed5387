"""Environment files of systemd, and others that hold nothing but assignments."""

from __future__ import annotations

import re

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.lines import Joining, comment_sites, line_of
from dsa_config.tools.migrate.mapped import Mapped
from dsa_config.tools.migrate.meaning import meaning_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.prose import prose_sites
from dsa_config.tools.migrate.sites import Reading, Site

_ASSIGNMENT = re.compile(r"\s*(?:export\s+)?[A-Za-z_]\w*\s*(?P<equals>=)", re.A)
_JOINING = Joining(comments=("#", ";"))


def read(text: str, names: Names) -> Reading:
    """The sites of a file of assignments.

    Raises:
        Unparsable: a line that is neither an assignment nor a comment.
    """
    sites: list[Site] = []
    meaning: list[str] = []
    for line in _JOINING.lines(text):
        logical = line.text
        match = _ASSIGNMENT.match(logical.text)
        if match is None:
            raise Unparsable(f"{logical.text.strip()!r} is no assignment", line_of(text, line.start))
        split = match.end("equals")
        value = Mapped(logical.text[split:], logical.places[split:])
        sites += [it for it in prose_sites(logical, names, comments=False) if it.start < logical.places[split - 1]]
        sites += prose_sites(value, names, scope=("text", line.start), comments=False)
        meaning.append(logical.text)
    return Reading(sites + comment_sites(text, sites, names, "[#;]"), meaning_of(meaning))


def holds_assignments(text: str) -> bool:
    """Whether a text is a list of assignments and nothing else."""
    lines = [line.text.text for line in _JOINING.lines(text)]
    return bool(lines) and all(_ASSIGNMENT.match(line) for line in lines)
