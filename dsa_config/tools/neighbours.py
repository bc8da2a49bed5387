"""Environment names that look like a known one and are not: slips, which nothing would ever read."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from dsa_config.controls import control_variables
from dsa_config.declare import LiveSettings
from dsa_config.declared import settings_of
from dsa_config.renames import Renamed

_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes sets in every container for every service of its namespace, whatever the services are called."""

MOST_EDITS = 2
LEAST_LIKENESS = 0.85
MOST_WORDS_LEFT_OUT = 2
LONGEST = 200
"""Names with more characters are nobody's slip, and are not compared."""


class Neighbourhood:
    """The names that a settings class knows, and what is near them.

    Attributes:
        known: every name with a meaning: of settings, deprecated, removed, and of control variables.
    """

    def __init__(self, cls: type[LiveSettings]) -> None:
        current = [setting.variable for setting in settings_of(cls).values()]
        deprecated = [name for setting in settings_of(cls).values() for name in setting.variables[1:]]
        removed = [tombstone.name for tombstone in cls.removed_names]
        controls = list(control_variables(cls))
        self.known = frozenset([*current, *deprecated, *removed, *controls])
        # Nobody is sent to a name that is on its way out.
        self._wanted = {name.upper(): name for name in [*current, *controls]}
        self._fields = {setting.name.upper(): setting.variable.upper() for setting in settings_of(cls).values()}
        self._twins = _twins(cls)
        self._prefix = str(cls.model_config.get("env_prefix", "")).upper()
        self._letters = {name: Counter(name) for name in self._wanted}

    def near(self, name: str) -> str | None:
        """The known name that a name was probably meant to be; None for a known name, and for one that is not near."""
        if name in self.known or len(name) > LONGEST:
            return None
        upper = name.upper()
        if _SERVICE_LINK.fullmatch(upper):
            return None
        today = "_".join(self._twins.get(word, word) for word in upper.split("_"))
        found = next((it for it in self._candidates(today) if it is not None), None)
        return None if found is None else self._wanted[found]

    def _candidates(self, name: str) -> Iterator[str | None]:
        """One answer for each kind of slip, surest first."""
        words = sorted(re.split(r"[_-]+", name))
        yield name if name in self._wanted else None  # the case, or a word that was renamed
        yield next((it for it in self._wanted if sorted(it.split("_")) == words), None)  # swapped words
        yield self._with_few_edits(name)
        if len(words) >= 3:  # the first word or two were left out
            yield next((it for it in self._wanted if it.endswith(f"_{name}")), None)
        if self._prefix and name.startswith(self._prefix):
            rest = name.removeprefix(self._prefix)
            yield self._fields.get(rest)  # the class's prefix, where the name has another
            rests = {it.removeprefix(self._prefix): it for it in self._wanted if it.startswith(self._prefix)}
            yield _alike(rest, rests)

    def _with_few_edits(self, name: str) -> str | None:
        letters = Counter(name)
        near = (
            (edits_between(name, it), it)
            for it, theirs in self._letters.items()
            # Cheap: what the longer one has more of cannot come by fewer edits.
            if abs(len(name) - len(it)) <= MOST_EDITS and (letters - theirs).total() <= MOST_EDITS
        )
        edits, found = min(near, default=(MOST_EDITS + 1, None))
        return found if edits <= MOST_EDITS else None


def edits_between(left: str, right: str) -> int:
    """How many characters to insert, delete, replace, or swap with the next one make `left` into `right`."""
    rows = [list(range(len(right) + 1))]
    for i, character in enumerate(left, 1):
        row = [i]
        for j, other in enumerate(right, 1):
            edits = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (character != other))
            if i > 1 and j > 1 and character == right[j - 2] and other == left[i - 2]:
                edits = min(edits, rows[-2][j - 2] + 1)
            row.append(edits)
        rows.append(row)
    return rows[-1][-1]


def _alike(rest: str, rests: Mapping[str, str]) -> str | None:
    """Within one prefix, where a slip is more likely than a stranger: by likeness, or by words that were left out."""
    close = difflib.get_close_matches(rest, rests, n=1, cutoff=LEAST_LIKENESS)
    if close:
        return rests[close[0]]
    words = set(rest.split("_"))
    longer = [it for it in rests if words < set(it.split("_")) and len(it.split("_")) - len(words) <= _left_out(words)]
    return rests[min(longer, key=len)] if longer else None


def _left_out(words: set[str]) -> int:
    """How many words may be missing: with fewer words left, there are too many names that have them."""
    return min(len(words) - 1, MOST_WORDS_LEFT_OUT)


def _twins(cls: type[LiveSettings]) -> dict[str, str]:
    """Words that renames replaced, such as NSA by DSA."""
    found: dict[str, str] = {}
    for setting in settings_of(cls).values():
        for entry in setting.deprecated:
            if isinstance(entry, Renamed):
                found |= _replaced(entry.name.upper().split("_"), setting.variable.upper().split("_"))
    return found


def _replaced(old: list[str], new: list[str]) -> Iterable[tuple[str, str]]:
    differ = [pair for pair in zip(old, new, strict=False) if pair[0] != pair[1]]
    return differ if len(old) == len(new) and len(differ) == 1 else ()
