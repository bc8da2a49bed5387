"""One text to its migrated form, and the proof that it means the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsa_config.tools.migrate.decide import ByHand, Edit, applied, decide
from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.lines import line_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.sites import Reader


@dataclass(frozen=True, slots=True)
class Change:
    """A name that changes in a line."""

    line: int
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A migrated text, what was changed in it, and what is left for a hand."""

    text: str
    changes: list[Change] = field(default_factory=list)
    by_hand: list[ByHand] = field(default_factory=list)


def rewrite(text: str, read: Reader, names: Names) -> Rewritten:
    """Migrate a text.

    Args:
        text: the file without its byte order mark.
        read: the reader of its format.
        names: what to rename.

    Raises:
        Unparsable: the reader does not take the text, or would not take the migrated one, or takes it for something
            else than the same with other names.
    """
    if not names.mentioned(text):
        return Rewritten(text)
    before = read(text, names)
    decision = decide(text, before, names)
    changes: list[Change] = []
    edits: list[Edit] = []
    for site in decision.renames:
        new = names.renamings[site.name].new
        assert new is not None
        changes.append(Change(line_of(text, site.start), site.name, new))
        edits.append(Edit(site.start, site.start + len(site.name), new))
    if not edits:
        return Rewritten(text, changes, decision.by_hand)
    _require_same(before.meaning, _read_again(applied(text, edits), read, names), names)
    migrated = applied(text, edits + decision.conversions)
    if decision.conversions:
        _require_values(migrated, edits, decision.conversions, read, names)
    return Rewritten(migrated, changes, decision.by_hand)


def _read_again(text: str, read: Reader, names: Names) -> str:
    try:
        return read(text, names).meaning
    except Unparsable as error:
        raise Unparsable(f"with the new names it could not be parsed: {error.why}", error.line) from None


def _require_same(before: str, after: str, names: Names) -> None:
    if names.renamed(before) != names.renamed(after):
        raise Unparsable("with the new names it would mean something else")


def _require_values(migrated: str, renames: list[Edit], conversions: list[Edit], read: Reader, names: Names) -> None:
    """Every converted value is read back as the text that was written."""
    try:
        sites = {site.start: site for site in read(migrated, names).sites}
    except Unparsable as error:
        raise Unparsable(f"with the new values it could not be parsed: {error.why}", error.line) from None
    found = {(site.value.start, site.value.text) for site in sites.values() if site.sets and site.value is not None}
    every = sorted([*renames, *conversions], key=lambda it: it.start)
    moved = 0
    for edit in every:
        if edit in conversions and (edit.start + moved, edit.text) not in found:
            raise Unparsable(f"the new value {edit.text!r} would be read as something else")
        moved += len(edit.text) - (edit.end - edit.start)
