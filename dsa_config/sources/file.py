"""The config file: settings by field name, files that it includes, and named profiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsa_config.declared import settings_of
from dsa_config.errors import BadValue, SourceError, nearest
from dsa_config.names import Word, words_of
from dsa_config.origins import Origin
from dsa_config.sources.documents import Document, read_document
from dsa_config.sources.texts import as_paths

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings

INCLUDE, PROFILE, PROFILES, SCHEMA = "include", "profile", "profiles", "$schema"
OWN_KEYS = (INCLUDE, PROFILE, PROFILES, SCHEMA)
"""What a config file has beside settings: files to build on, the profile to use, profiles by name, its JSON Schema."""


@dataclass(slots=True)
class ConfigFile:
    """A config file and all that it includes, in the order of precedence, strongest first."""

    cls: type[LiveSettings]
    documents: list[Document] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def words(self, profile: str | None) -> dict[str, list[list[Word]]]:
        """What the files say of each setting, table by table, strongest first.

        Args:
            profile: which one to use; None: the one that the strongest file names, if any.

        Raises:
            SourceError: an unknown key, an unknown profile, or a key of the wrong kind; all that there are.
        """
        found = self.sound_words(profile)
        if self.reasons:
            raise SourceError(f"config file {self.documents[0].path}", self.reasons)
        return found

    def sound_words(self, profile: str | None) -> dict[str, list[list[Word]]]:
        """The same where keys may be wrong: they are left out, and `reasons` tells of them."""
        chosen, why = profile, "is asked for"
        for document in self.documents:
            named = document.data.get(PROFILE)
            if named is not None and not isinstance(named, str):
                self.reasons.append(f"{document.place(PROFILE)}: {PROFILE} is the name of a profile, not {named!r}")
            elif named is not None and chosen is None:
                chosen, why = named, f"is named at {document.place(PROFILE)}"
        found: dict[str, list[list[Word]]] = {}
        for words in [self._table(*table) for table in self._tables(chosen, why)]:
            for name, said in words.items():
                found.setdefault(name, []).append(said)
        return found

    def _tables(self, chosen: str | None, why: str) -> Iterator[tuple[Document, tuple[str, ...], dict[str, Any]]]:
        """The tables of settings: in each file, the chosen profile before what holds for all."""
        known: list[str] = []
        used = False
        for document in self.documents:
            profiles = document.data.get(PROFILES, {})
            if not isinstance(profiles, dict) or not all(isinstance(it, dict) for it in profiles.values()):
                self.reasons.append(f"{document.place(PROFILES)}: {PROFILES} holds a table for each profile")
                profiles = {}
            known += map(str, profiles)
            if chosen in profiles:
                used = True
                yield document, (PROFILES, str(chosen)), profiles[chosen]
            # Settings of a profile that is not used are checked too: they may be used tomorrow.
            for name in profiles:
                if name != chosen:
                    self._check(self._table(document, (PROFILES, str(name)), profiles[name]))
            yield document, (), {key: value for key, value in document.data.items() if key not in OWN_KEYS}
        if chosen is not None and not used:
            names = f"there are {', '.join(dict.fromkeys(known))}" if known else "there are no profiles"
            self.reasons.append(f"the profile {chosen!r} {why}; {names}")

    def _table(self, document: Document, keys: tuple[str, ...], table: dict[str, Any]) -> dict[str, list[Word]]:
        settings = settings_of(self.cls)
        owners = {name: name for name in settings}
        for setting in settings.values():
            owners |= dict.fromkeys(setting.variables[1:], setting.name)
        for key in table:
            if key not in owners:
                self.reasons.append(f"{document.place(*keys, str(key))}: {self._unknown(str(key))}")
        words = "config file" if not keys else f"profile {keys[1]} of the config file"
        return {
            name: said
            for name, setting in settings.items()
            if (
                said := words_of(
                    setting, table, lambda key: Origin(words, place=document.place(*keys, key)), canonical=name
                )
            )
        }

    def _check(self, words: dict[str, list[Word]]) -> None:
        for word in itertools.chain.from_iterable(words.values()):
            try:
                word.parse()
            except BadValue as error:
                self.reasons.append(str(error))

    def _unknown(self, key: str) -> str:
        for setting in settings_of(self.cls).values():
            if key == setting.variable:
                return f"{key!r} is the environment name of {setting.name}; files use {setting.name}"
        for tombstone in self.cls.removed_names:
            if key == tombstone.name:
                return str(tombstone)
        prefix = str(self.cls.model_config.get("env_prefix", ""))
        close = nearest(key.removeprefix(prefix), [*settings_of(self.cls), *OWN_KEYS])
        return f"{key!r} is not a setting" + (f"; did you mean {' or '.join(close)}?" if close else "")


def read_config_file(cls: type[LiveSettings], path: Path) -> ConfigFile:
    """Read a config file and all files that it includes.

    Raises:
        SourceError: one of them cannot be read or parsed, or includes itself.
    """
    files = ConfigFile(cls)
    _read(files, path, ())
    return files


def _read(files: ConfigFile, path: Path, chain: tuple[Path, ...]) -> None:
    place = path.absolute()
    if place in chain:
        told = " -> ".join(str(it) for it in (*chain[chain.index(place) :], place))
        raise SourceError(f"config file {chain[0]}", [f"includes itself: {told}"])
    document = read_document(files.cls, place)
    files.documents.append(document)
    included = document.data.get(INCLUDE, [])
    included = [included] if isinstance(included, str) else included
    if not isinstance(included, list) or not all(isinstance(name, str) and name for name in included):
        raise SourceError(f"config file {path}", [f"{document.place(INCLUDE)}: {INCLUDE} is a path or a list of paths"])
    # The file itself is stronger than what it includes, and of those the last is strongest.
    for name in reversed(included):
        _read(files, place.parent / as_paths(name)[0], (*chain, place))
