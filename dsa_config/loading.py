"""Loading: every source beside the environment is read at once, checked whole, and taken whole or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsa_config import lifecycle
from dsa_config.controls import Controls
from dsa_config.errors import BadValue, raise_together
from dsa_config.layers import LOADED, Layer, Source
from dsa_config.names import Word
from dsa_config.policy import Policy
from dsa_config.sources.texts import CloudStore, as_paths, cloud_words, dotenv_words, secrets_words

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings
    from dsa_config.state import FlagSource


class _ByVariable:
    """Left to the control variable."""

    def __repr__(self) -> str:
        return "BY_VARIABLE"


BY_VARIABLE: Any = _ByVariable()


@dataclass(frozen=True, slots=True)
class Sources:
    """What the caller of `load` names; what is `BY_VARIABLE` is named by its control variable. None: nothing."""

    file: Path | str | None = BY_VARIABLE
    profile: str | None = BY_VARIABLE
    dotenv: Sequence[Path | str] | Path | str | None = BY_VARIABLE
    secrets_dir: Path | str | None = BY_VARIABLE
    cloud: Sequence[CloudStore] = ()
    flags: Path | str | FlagSource | None = BY_VARIABLE
    emulate_version: str | None = BY_VARIABLE
    fatal_deprecations: bool = BY_VARIABLE
    fatal_conflicts: bool = BY_VARIABLE

    def settled(self, controls: Controls) -> Sources:
        """With what the control variables name."""
        named: dict[str, Any] = {
            "file": controls.config,
            "profile": controls.profile,
            "dotenv": controls.dotenv,
            "secrets_dir": controls.secrets_dir,
            "flags": controls.flags,
            "emulate_version": controls.emulate_version,
            "fatal_deprecations": controls.fatal_deprecations,
            "fatal_conflicts": controls.fatal_conflicts,
        }
        open_ones = {it.name for it in fields(self) if getattr(self, it.name) is BY_VARIABLE}
        return replace(self, **{name: value for name, value in named.items() if name in open_ones})


@dataclass(frozen=True, slots=True)
class Loaded:
    """All that was loaded.

    Attributes:
        layers: for each setting that a source says something about, its layers, strongest first.
        flags: what evaluates feature flags, or None.
        files: every file and folder that was read.
        words: for each setting, what each source says about it, in groups of names that are weighed together.
        mentioned: names in dotenv files and secrets folders, for what is to be said about removed ones.
    """

    layers: Mapping[str, tuple[Layer, ...]] = field(default_factory=dict, repr=False)  # may hold secrets
    flags: FlagSource | None = None
    files: tuple[Path, ...] = ()
    words: Mapping[str, list[list[Word]]] = field(default_factory=dict, repr=False)
    mentioned: frozenset[str] = frozenset()

    @property
    def flagged(self) -> frozenset[str]:
        """The settings that have a feature flag."""
        return frozenset(self.flags.names) if self.flags is not None else frozenset()


def read_sources(cls: type[LiveSettings], sources: Sources, policy: Policy) -> Loaded:
    """Read all sources and check all that they say.

    Args:
        cls: the settings class.
        sources: what to read, settled.
        policy: how deprecated names are treated.

    Raises:
        SourceError: a source cannot be read.
        BadValue, BadValues: what its settings do not take.
        DeprecatedNameRefused, ConflictRefused: names that are errors under the policy.
    """
    said: dict[Source, list[dict[str, list[Word]]]] = {source: [] for source in LOADED}
    files: list[Path] = []
    mentioned: frozenset[str] = frozenset()
    for path in reversed(as_paths(sources.dotenv)):  # of several, the last is strongest
        words, names = dotenv_words(cls, path)
        said["dotenv"].append(words)
        mentioned |= names
        files.append(path)
    for folder in as_paths(sources.secrets_dir):
        words, names = secrets_words(cls, folder)
        said["secrets"].append(words)
        mentioned |= names
        files.append(folder)
    said["cloud"] = [cloud_words(cls, store) for store in reversed(tuple(sources.cloud))]
    for path in as_paths(sources.file):
        from dsa_config.sources.file import read_config_file

        config = read_config_file(cls, path)
        files += [document.path for document in config.documents]
        tables = config.words(sources.profile)
        deepest = max(map(len, tables.values()), default=0)
        said["file"] = [
            {name: words[depth] for name, words in tables.items() if depth < len(words)} for depth in range(deepest)
        ]
    flags = sources.flags
    if isinstance(flags, str | Path):
        from dsa_config.flags.rules import load_flags

        files += as_paths(flags)
        flags = load_flags(files[-1], cls)
    layers, groups = _layers(said, policy)
    return Loaded(layers, flags, tuple(files), groups, mentioned)


def _layers(
    said: Mapping[Source, list[dict[str, list[Word]]]], policy: Policy
) -> tuple[dict[str, tuple[Layer, ...]], dict[str, list[list[Word]]]]:
    found: dict[str, list[Layer]] = {}
    errors: list[BadValue] = []
    groups: dict[str, list[list[Word]]] = {}
    for source in LOADED:
        for one in said[source]:
            for name, words in one.items():
                lifecycle.require_allowed(words, policy)
                groups.setdefault(name, []).append(words)
                for word in lifecycle.in_force(words, policy):
                    try:
                        layer = Layer(word.setting, source, word.origin, word.given, word, word.parse())
                        found.setdefault(name, []).append(layer)
                    except BadValue as error:
                        errors.append(error)
    raise_together(errors)
    for words in itertools.chain.from_iterable(groups.values()):
        lifecycle.warn_once(words, policy)
    return {name: tuple(layers) for name, layers in found.items()}, groups
