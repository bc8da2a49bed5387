"""Snapshots of all values, and what differs between two: of a process, of `dsa config show --json`, of a file alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsa_config import settings
from dsa_config.declarations.dsa import DSASettings
from dsa_config.declared import MASK, settings_of
from dsa_config.errors import SourceError
from dsa_config.loading import Sources, read_sources
from dsa_config.policy import policy_of
from dsa_config.sources.documents import read_text
from dsa_config.tools.explanations import explain_all
from dsa_config.version import __version__

PROCESS = "-"
CONFIG_SUFFIXES = (".toml", ".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Value:
    """A setting's value in JSON's types, and where it came from."""

    value: Any
    origin: str

    def __str__(self) -> str:
        return f"{json.dumps(self.value)} (from {self.origin})"


DEFAULT = "the declaration"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The values of all settings at one place and time.

    Attributes:
        label: what it is of.
        version: the version of the project that made it; None: not known.
        values: by setting.
    """

    label: str
    version: str | None
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting that two snapshots have different values of; None: one of them does not have it."""

    name: str
    a: Value | None
    b: Value | None

    @property
    def left(self) -> str:
        """The first one's value, in words."""
        return "not there" if self.a is None else str(self.a)

    @property
    def right(self) -> str:
        """The second one's value, in words."""
        return "not there" if self.b is None else str(self.b)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between two snapshots, and what there is to say beside."""

    a: Snapshot
    b: Snapshot
    differences: list[Difference]
    notes: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The comparison as data."""
        return {
            "equal": not self.differences,
            "a": {"label": self.a.label, "version": self.a.version},
            "b": {"label": self.b.label, "version": self.b.version},
            "differences": [{"name": it.name, "a": _as_data(it.a), "b": _as_data(it.b)} for it in self.differences],
            "notes": self.notes,
        }


def compare(a: Snapshot, b: Snapshot) -> Comparison:
    """Compare two snapshots, setting by setting."""
    names = dict.fromkeys([*a.values, *b.values])
    differences = []
    masked = []
    for name in names:
        left, right = a.values.get(name), b.values.get(name)
        if left is not None and right is not None and left.value == right.value == MASK:
            masked.append(name)
        elif left is None or right is None or json.dumps(left.value) != json.dumps(right.value):
            differences.append(Difference(name, left, right))
    notes = [f"{', '.join(masked)}: a secret, which is not compared"] if masked else []
    if a.version and b.version and a.version != b.version:
        notes.append(f"{a.label} is of version {a.version}, {b.label} of {b.version}")
    return Comparison(a, b, differences, notes)


def show_document(*, changed_only: bool = False) -> dict[str, Any]:
    """What `dsa config show --json` prints.

    Raises:
        SourceError, BadValue, BadValues: values that cannot be read.
    """
    explanations = explain_all(changed_only=changed_only)
    return {
        "version": __version__,
        "fingerprint": settings.fingerprint(),
        "files": [str(path) for path in settings.loaded_files()],
        "changed_only": changed_only,
        "settings": [{key: getattr(it, key) for key in ("name", "value", "source", "origin")} for it in explanations],
    }


def snapshot_of(what: str) -> Snapshot:
    """The snapshot that an argument of `dsa config diff` names.

    Args:
        what: `-` for this process; a file that `dsa config show --json` or `dsa run --json` wrote; a config file; or
            any other file, which is read as dotenv. Of the last two it is what they give with nothing beside them.

    Raises:
        SourceError, BadValue, BadValues: it cannot be read.
    """
    if what == PROCESS:
        return _from_document(json.loads(json.dumps(show_document(), default=str)), "this process")
    path = Path(what)
    text = read_text(path, "snapshot")
    if text.lstrip().startswith("{"):
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None  # a config file's own parser tells what is wrong
        if isinstance(document, dict) and isinstance(document.get("settings"), list):
            return _from_document(document, what)
    return _alone(path, what)


def _alone(path: Path, label: str) -> Snapshot:
    """What a file gives with no other source."""
    is_config = path.suffix in CONFIG_SUFFIXES
    sources = Sources(
        file=path if is_config else None,
        profile=None,
        dotenv=None if is_config else path,
        secrets_dir=None,
        flags=None,
        emulate_version=None,
        fatal_deprecations=False,
        fatal_conflicts=False,
    )
    loaded = read_sources(DSASettings, sources, policy_of(DSASettings))
    values = _defaults()
    for name, layers in loaded.layers.items():
        setting = settings_of(DSASettings)[name]
        values[name] = _value(setting.masked(layers[0].read()), str(layers[0].origin))
    return Snapshot(label, __version__, values)


def _from_document(document: Mapping[str, Any], label: str) -> Snapshot:
    # A report of `dsa run` lists what is not at its default, and does not say so.
    values = _defaults() if document.get("changed_only", True) else {}
    for row in document["settings"]:
        if not isinstance(row, dict) or not isinstance(row.get("name"), str) or "value" not in row:
            raise SourceError(f"snapshot {label}", ["has an entry in settings without name and value"])
        values[row["name"]] = Value(row["value"], str(row.get("origin", "the snapshot")))
    version = document.get("version")
    return Snapshot(label, version if isinstance(version, str) else None, values)


def _defaults() -> dict[str, Value]:
    return {name: _value(it.masked(it.default), DEFAULT) for name, it in settings_of(DSASettings).items()}


def _value(value: Any, origin: str) -> Value:
    return Value(json.loads(json.dumps(value, default=str)), origin)


def _as_data(value: Value | None) -> dict[str, Any] | None:
    return None if value is None else {"value": value.value, "origin": value.origin}
