"""A config file as data: read by pydantic-settings' own source for its format, together with the text for positions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsa_config.errors import SourceError
from dsa_config.sources.positions import FilePlace, Position, in_toml, in_yaml

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings

NO_TABLE = "is no table of settings at its top"

FORMATS = ".toml, .yaml, .yml or .json, or pyproject.toml"


@dataclass(frozen=True, slots=True)
class Document:
    """A config file: its data, its text, and the table of it that holds the settings."""

    path: Path
    data: dict[str, Any] = field(repr=False)
    text: str = field(repr=False)
    table: tuple[str, ...]
    find: Callable[[str, Sequence[str]], Position | None]

    def place(self, *keys: str) -> FilePlace:
        """Where a key stands."""
        return FilePlace(str(self.path), self.text, (*self.table, *keys), self.find)


def read_text(path: Path, what: str) -> str:
    """The text of a file.

    Raises:
        SourceError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SourceError(f"{what} {path}", [f"cannot be read: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        raise SourceError(f"{what} {path}", [f"is not UTF-8 (byte {error.start})"]) from None
    except ValueError as error:  # a path that no system has: with a zero byte, or half a character
        raise SourceError(f"{what} {str(path)!r}", [f"cannot be read: {error}"]) from None


def read_document(cls: type[LiveSettings], path: Path) -> Document:
    """Read a config file.

    Raises:
        SourceError: it cannot be read or parsed, has a key twice, or is of another format.
    """
    what = f"config file {path}"
    text = read_text(path, "config file")
    table: tuple[str, ...] = ()
    try:
        if path.name == "pyproject.toml":
            table = cls.config_table
            data, find = _toml(cls, path), in_toml
            for key in table:
                if not isinstance(data, dict) or key not in data:
                    raise SourceError(what, [f"has no table [{'.'.join(table)}]"])
                data = data[key]
        elif path.suffix == ".toml":
            data, find = _toml(cls, path), in_toml
        elif path.suffix in (".yaml", ".yml"):
            data, find = _yaml(cls, path, text), in_yaml
        elif path.suffix == ".json":
            data, find = _json(cls, path, text), in_yaml
        else:
            raise SourceError(what, [f"has no format that is known by its name; wanted {FORMATS}"])
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # what parsers raise
        raise SourceError(what, [f"cannot be parsed: {' '.join(str(error).split())}"]) from None
    if not isinstance(data, dict):
        raise SourceError(what, [NO_TABLE])
    for key in data:
        if not isinstance(key, str):  # the words of YAML 1.1
            raise SourceError(what, [f"has the key {key!r}, which is no text; on, off, yes and no need quotes"])
    return Document(path, data, text, table, find)


def _toml(cls: type[LiveSettings], path: Path) -> Any:
    from pydantic_settings import TomlConfigSettingsSource

    return TomlConfigSettingsSource(cls, toml_file=path).toml_data


def _json(cls: type[LiveSettings], path: Path, text: str) -> Any:
    from pydantic_settings import JsonConfigSettingsSource

    if text.strip() and not isinstance(json.loads(text, object_pairs_hook=_distinct), dict):
        raise SourceError(f"config file {path}", [NO_TABLE])
    return JsonConfigSettingsSource(cls, json_file=path).json_data


def _yaml(cls: type[LiveSettings], path: Path, text: str) -> Any:
    from pydantic_settings import YamlConfigSettingsSource

    try:
        import yaml
    except ImportError:
        raise SourceError(f"config file {path}", ["needs PyYAML: pip install 'dsa[yaml]'"]) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise SourceError(f"config file {path}", [NO_TABLE])
        _require_distinct(node)
        return YamlConfigSettingsSource(cls, yaml_file=path).yaml_data
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a dict. A parser would take the last of two equal keys and lose the first in silence."""
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return found


def _require_distinct(node: Any) -> None:
    """The same for YAML."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias may point to a node that holds it
            continue
        seen.add(id(node))
        if node is None or isinstance(node.value, str):
            continue
        for item in node.value:
            waiting += item if isinstance(item, tuple) else [item]
        keys = [item[0].value for item in node.value if isinstance(item, tuple) and isinstance(item[0].value, str)]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise ValueError(f"the key {key!r} is there twice")
