"""A setting under its names: which of them a source has, what each says, and whether two of them disagree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dsa_config.errors import BadValue, Rejected
from dsa_config.origins import Origin

if TYPE_CHECKING:
    from dsa_config.declared import Setting
    from dsa_config.renames import Deprecated


@dataclass(frozen=True, slots=True)
class Word:
    """What one source says about a setting under one of its names, or under the several that became one setting."""

    setting: Setting
    entry: Deprecated | None
    """The deprecated names that it is said under; None: the canonical one."""
    found: Mapping[str, Any] = field(repr=False)  # it may be a secret
    """The names and what the source has under each: text, or a typed value where a file has types."""
    origin: Origin

    @property
    def given(self) -> Any:
        """What was given: as it stands, or as `A=1 B=0` where several names are read together."""
        if len(self.found) == 1:
            return next(iter(self.found.values()))
        return " ".join(f"{name}={given}" for name, given in self.found.items())

    def parse(self) -> Any:
        """The setting's value.

        Raises:
            BadValue: the setting does not take what was given.
        """
        try:
            return self.setting.parse(self.today())
        except Rejected as error:
            raise BadValue.of(
                self.setting,
                variable=next(iter(self.found)) if len(self.found) == 1 else None,
                given=self.given,
                origin=self.origin,
                reason=error.reason,
            ) from None

    def today(self) -> Any:
        """What is given, in the meaning that the setting has today.

        Raises:
            Rejected: the old meaning has no counterpart.
        """
        if self.entry is None or self.entry.convert is None:
            return self.given
        old = self.setting.old_values(self.entry, self.found)
        try:
            return self.entry.convert(*old)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise Rejected(f"has no counterpart today ({error})") from None


def words_of(
    setting: Setting, found: Mapping[str, Any], origin_of: Callable[[str], Origin], *, canonical: str = ""
) -> list[Word]:
    """What a source says about a setting, strongest first: the canonical name, then deprecated ones as declared.

    Args:
        setting: which one.
        found: names and what the source has under each; names of other settings are left alone.
        origin_of: where the source has a name.
        canonical: the setting's own name in this kind of source; its environment variable if not given.
    """
    canonical = canonical or setting.variable
    words = []
    if canonical in found:
        words.append(Word(setting, None, {canonical: found[canonical]}, origin_of(canonical)))
    for entry in setting.deprecated:
        given = {name: found[name] for name in entry.names if name in found}
        if given:
            words.append(Word(setting, entry, given, origin_of(next(iter(given)))))
    return words


def conflict_of(words: Sequence[Word]) -> dict[str, Any] | None:
    """The names and what is given under each, winner first, if two of a source's words differ; else None.

    Plain renames are compared as text. A word whose meaning changed with its name is compared by its value.
    """
    if len(words) < 2:
        return None
    if all(word.entry is None or word.entry.convert is None for word in words):
        differ = len({str(word.given).strip() for word in words}) > 1
    else:
        differ = len({_comparable(word) for word in words}) > 1
    return {name: given for word in words for name, given in word.found.items()} if differ else None


def _comparable(word: Word) -> str:
    try:
        return repr(word.parse())
    except BadValue:
        return f"{word.given!r}, which is no value"
