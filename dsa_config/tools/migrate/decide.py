"""What is changed in a file and what is left to a hand: a name is renamed everywhere in a file, or nowhere in it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from dsa_config.errors import Rejected, shown
from dsa_config.tools.migrate.lines import line_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.renamings import Renaming
from dsa_config.tools.migrate.sites import Reading, Site

UNEXPECTED = "it stands where this tool expects no name"
_PLAIN = re.compile(r"[\w.:/,%@+-]+", re.A)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_BOOLEANS = {"true", "false"}


@dataclass(frozen=True, slots=True)
class ByHand:
    """Something that a person must look at."""

    line: int
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A stretch of the file and what takes its place."""

    start: int
    end: int
    text: str


@dataclass(slots=True)
class Decision:
    """What becomes of a file's names.

    Attributes:
        renames: the sites whose names change.
        conversions: edits of the values that change with them.
        by_hand: what a person must look at.
    """

    renames: list[Site] = field(default_factory=list)
    conversions: list[Edit] = field(default_factory=list)
    by_hand: list[ByHand] = field(default_factory=list)


def decide(text: str, reading: Reading, names: Names) -> Decision:
    """Decide for every old name of a file."""
    decision = Decision()
    of_name: dict[str, list[Site]] = defaultdict(list)
    for site in reading.sites:
        of_name[site.name].append(site)
    for old, renaming in names.renamings.items():
        sites = [site for site in of_name[old] if site.action != "leave"]
        _decide(text, renaming, sites, reading.sites, decision, names)
    known = {site.start for site in reading.sites}
    for match in names.find_old(text):
        if match.start() not in known:
            decision.by_hand.append(ByHand(line_of(text, match.start()), match[0], UNEXPECTED))
    decision.by_hand.sort(key=lambda it: (it.line, it.name))
    decision.renames.sort(key=lambda it: it.start)
    return decision


def _decide(
    text: str, renaming: Renaming, sites: list[Site], all_sites: list[Site], decision: Decision, names: Names
) -> None:
    reasons = {site.start: site.why for site in sites if site.action == "by hand"}
    certain = [site for site in sites if site.action == "rename"]
    conversions: list[Edit] = []
    if renaming.why_by_hand:
        blocking = {site.start: renaming.why_by_hand for site in sites}
    else:
        blocking = dict(_conflicts(text, renaming, certain, all_sites, names))
        if renaming.convert is not None:
            blocking |= {place: f"{why}, and its value changes too" for place, why in reasons.items()}
            for site in certain:
                edit = _conversion(site, renaming)
                if isinstance(edit, str):
                    blocking.setdefault(site.start, edit)
                else:
                    conversions.append(edit)
    if blocking:
        first = min(line_of(text, place) for place in blocking)
        for site in certain:
            reasons.setdefault(site.start, f"a name is renamed everywhere in a file or nowhere: see line {first}")
    else:
        decision.renames += certain
        decision.conversions += [edit for edit in conversions if edit.start >= 0]
    reasons |= blocking
    decision.by_hand += [ByHand(line_of(text, place), renaming.old, why) for place, why in reasons.items()]


def _conflicts(
    text: str, renaming: Renaming, sites: list[Site], all_sites: list[Site], names: Names
) -> Iterator[tuple[int, str]]:
    """The sites in a scope that also sets the new name, be it by another old one."""
    rivals: dict[object, list[Site]] = defaultdict(list)
    for other in all_sites:
        other_new = other.name if other.name not in names.renamings else names.renamings[other.name].new
        if other.sets and other.name != renaming.old and other_new == renaming.new:
            rivals[other.scope].append(other)
    for site in sites:
        for rival in rivals[site.scope]:
            where = f"{rival.name} is set too, at line {line_of(text, rival.start)}"
            if not site.sets:
                yield site.start, f"{where}: {renaming.old} is read beside it, decide which one is meant"
            elif site.value is None or rival.value is None:
                yield site.start, f"{where}: decide which one holds"
            elif _converted(renaming, site.value.text) == _converted(names.renamings.get(rival.name), rival.value.text):
                yield site.start, f"{where}, to the same text: remove {renaming.old}"
            else:
                texts = f"{shown(rival.value.text)}, and {renaming.old} to {shown(site.value.text)}"
                yield site.start, f"{where}, to {texts}: a conflict, decide which one holds"


def _converted(renaming: Renaming | None, text: str) -> str:
    if renaming is None or renaming.convert is None:
        return text
    try:
        return renaming.convert(text)
    except Rejected:
        return text


def _conversion(site: Site, renaming: Renaming) -> Edit | str:
    """The edit of a value that changes with its name, or why there is none."""
    assert renaming.convert is not None
    if not site.sets or site.value is None:
        return f"the value of {renaming.new} is another than that of {renaming.old}, and here it is no literal"
    old = site.value.text
    try:
        new = renaming.convert(old)
    except Rejected as rejected:
        return f"{shown(old)} cannot be converted: {rejected.reason}"
    if new == old:
        return Edit(-1, -1, "")
    if site.value.start < 0 or not _PLAIN.fullmatch(new) or (site.value.typed and _type(old) != _type(new)):
        return f"{shown(old)} becomes {shown(new)}, which may need quotes here"
    return Edit(site.value.start, site.value.end, new)


def _type(text: str) -> str:
    if _NUMBER.fullmatch(text):
        return "number"
    return "boolean" if text in _BOOLEANS else f"text {text}"


def applied(text: str, edits: list[Edit]) -> str:
    """The text with edits made."""
    for edit in sorted(edits, key=lambda it: it.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text
