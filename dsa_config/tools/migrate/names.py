"""Where names stand in a text: whole tokens only."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from dsa_config.tools.migrate.renamings import Renaming


class Names:
    """The old and new names of a set of renamings, and the search for them."""

    def __init__(self, renamings: Iterable[Renaming]) -> None:
        self.renamings = {renaming.old: renaming for renaming in renamings}
        news = {renaming.new for renaming in self.renamings.values() if renaming.new is not None}
        self.known = frozenset(self.renamings) | news
        # A name may stick to docker's short option: `-eNAME=1`.
        start = r"(?:(?<!\w)|(?<=^-e)|(?<=[\s\"'=,\[]-e))"
        self._either = re.compile(rf"{start}(?:{_either_of(self.known)})(?!\w)")
        self._old = re.compile(rf"{start}(?:{_either_of(self.renamings)})(?!\w)")

    def mentioned(self, text: str) -> bool:
        """Whether an old name is anywhere in the text, be it inside a longer word or after an escape."""
        return any(old in text for old in self.renamings)

    def find(self, text: str) -> Iterator[re.Match[str]]:
        """Old and new names, as whole tokens."""
        return self._either.finditer(text)

    def find_old(self, text: str) -> Iterator[re.Match[str]]:
        """Old names, as whole tokens."""
        return self._old.finditer(text)

    def renamed(self, text: str) -> str:
        """The text with every old name that has a new one replaced. For comparing structures, not for files."""

        def new_name(match: re.Match[str]) -> str:
            return self.renamings[match[0]].new or match[0]

        return self._old.sub(new_name, text)


def _either_of(names: Iterable[str]) -> str:
    # Longest first, though a whole token can be only one of them; `(?!)` matches nothing.
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)"
