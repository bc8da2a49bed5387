"""What is to be renamed, and how: worked out from the declarations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dsa_config.declare import LiveSettings
from dsa_config.declared import Setting, settings_of
from dsa_config.errors import Rejected
from dsa_config.names import Word
from dsa_config.origins import Origin
from dsa_config.renames import Deprecated, Merged


@dataclass(frozen=True, slots=True)
class Renaming:
    """One deprecated environment name and what becomes of it.

    Attributes:
        old: the deprecated name.
        new: the canonical name; None where the name was removed without replacement.
        convert: old text to new text, where the value changes too; raises `Rejected` for text that it cannot convert.
        by_hand: a sentence that says why no tool can do it, for settings that were merged or split.
    """

    old: str
    new: str | None
    convert: Callable[[str], str] | None = None
    by_hand: str = ""

    @property
    def why_by_hand(self) -> str:
        """Why a person must do it; empty where the tool can."""
        if self.by_hand:
            return self.by_hand
        return "" if self.new is not None else f"{self.old} was removed without replacement"


def renamings_of(cls: type[LiveSettings]) -> list[Renaming]:
    """A renaming for each deprecated name of a settings class, and for each name that it removed."""
    found: dict[str, Renaming] = {}
    for setting in settings_of(cls).values():
        for entry in setting.deprecated:
            for name in entry.names:
                found[name] = _renaming(name, setting, entry)
    for tombstone in cls.removed_names:
        found[tombstone.name] = Renaming(tombstone.name, None, by_hand=str(tombstone))
    return list(found.values())


def _renaming(name: str, setting: Setting, entry: Deprecated) -> Renaming:
    if isinstance(entry, Merged):
        return Renaming(name, setting.variable, by_hand=f"{entry.name} became {setting.variable} together")
    if entry.split:
        return Renaming(name, setting.variable, by_hand=f"{name} was split; one part of it is {setting.variable}")
    if entry.convert is None:
        return Renaming(name, setting.variable)

    def convert(text: str) -> str:
        word = Word(setting, entry, {name: text}, Origin("the file"))
        try:
            return setting.text_of(setting.parse(word.today()))
        except TypeError as error:
            raise Rejected(str(error)) from None

    return Renaming(name, setting.variable, convert)
