"""Reading every source for a check: what cannot be read becomes a finding, and the rest is read all the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dsa_config.declare import LiveSettings
from dsa_config.declared import settings_of
from dsa_config.errors import SettingError, SourceError
from dsa_config.flags.errors import FlagFileError
from dsa_config.loading import Sources
from dsa_config.names import Word
from dsa_config.sources import env
from dsa_config.sources.file import read_config_file
from dsa_config.sources.positions import FilePlace, in_dotenv, whole_file
from dsa_config.sources.texts import as_paths, cloud_words, dotenv_words, secrets_words
from dsa_config.tools.findings import Finding

if TYPE_CHECKING:
    from dsa_config.state import FlagSource

_PLACED = re.compile(r"(?P<place>.+?:\d+(?::\d+)?): (?P<rest>.+)", re.S)


@dataclass(slots=True)
class Gathered:
    """What the sources of a class say, strongest source first, and what is wrong with the sources.

    Attributes:
        words: for each source, what it says of each setting.
        mentioned: names in dotenv files and secrets folders, each with its place.
        flags: what evaluates feature flags, or None.
        files: every file and folder that was read.
        findings: sources, and parts of them, that cannot be used.
    """

    cls: type[LiveSettings]
    words: list[dict[str, list[Word]]] = field(default_factory=list)
    mentioned: dict[str, FilePlace] = field(default_factory=dict)
    flags: FlagSource | None = None
    files: list[Path] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def refuse(self, error: SettingError) -> None:
        """Note a source that cannot be used: one finding for each reason."""
        if isinstance(error, FlagFileError):
            source, reasons = f"flag file {error.path}", error.errors
        elif isinstance(error, SourceError):
            source, reasons = error.source, error.reasons
        else:
            source, reasons = "feature flags", (str(error),)
        for reason in reasons:
            self._refuse(source, reason)

    def _refuse(self, source: str, reason: str) -> None:
        placed = _PLACED.fullmatch(reason)
        origin, told = (placed["place"], placed["rest"]) if placed else (source, reason)
        for tombstone in self.cls.removed_names:
            if told == str(tombstone):
                finding = Finding(
                    "error", "removed-name", tombstone.name, None, origin, told, f"instead: {tombstone.instead}"
                )
                break
        else:
            finding = Finding("error", "unusable-source", source, None, origin, f"{source}: {told}")
        self.findings.append(finding)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Read one source: what is raised becomes findings."""
        try:
            yield
        except SettingError as error:
            self.refuse(error)


def gather(cls: type[LiveSettings], sources: Sources) -> Gathered:
    """Read the environment and all sources, however many of them cannot be used.

    Args:
        cls: the settings class.
        sources: what to read beside the environment, settled.
    """
    found = Gathered(cls)
    found.words.append({name: said for name, it in settings_of(cls).items() if (said := env.words_in(it))})
    with found.refusing():
        for path in reversed(as_paths(sources.dotenv)):
            with found.refusing():
                words, names = dotenv_words(cls, path)
                text = path.read_text("utf-8")
                _add(found, path, words, {name: FilePlace(str(path), text, (name,), in_dotenv) for name in names})
    with found.refusing():
        for folder in as_paths(sources.secrets_dir):
            words, names = secrets_words(cls, folder)
            _add(found, folder, words, {name: FilePlace(str(folder / name), "", (), whole_file) for name in names})
    for store in reversed(tuple(sources.cloud)):
        with found.refusing():
            found.words.append(cloud_words(cls, store))
    with found.refusing():
        for path in as_paths(sources.file):
            _read_config(found, path, sources.profile)
    with found.refusing():
        _read_flags(found, sources)
    return found


def _add(found: Gathered, path: Path, words: dict[str, list[Word]], mentioned: dict[str, FilePlace]) -> None:
    found.words.append(words)
    found.files.append(path)
    found.mentioned = {**mentioned, **found.mentioned}


def _read_config(found: Gathered, path: Path, profile: str | None) -> None:
    config = read_config_file(found.cls, path)
    found.files += [document.path for document in config.documents]
    tables = config.sound_words(profile)
    for depth in range(max(map(len, tables.values()), default=0)):
        found.words.append({name: words[depth] for name, words in tables.items() if depth < len(words)})
    if config.reasons:
        found.refuse(SourceError(f"config file {path}", config.reasons))


def _read_flags(found: Gathered, sources: Sources) -> None:
    flags = sources.flags
    if isinstance(flags, str | Path):
        from dsa_config.flags.rules import load_flags

        (path,) = as_paths(flags)
        flags = load_flags(path, found.cls)
        found.files.append(path)
    found.flags = flags
