"""Which code reads which setting: found in the source of the packages that a settings class names in `read_by`.

Nothing is imported. Three forms of reading are known: `settings.fuse_topk`, `getattr(settings, "fuse_topk")`, and
`getattr(settings, f"{op}_backend")` in a module whose functions others call with the op as their first argument. A read
by another way (`vars`, a live object under a second name) is not seen.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dsa_config.declare import LiveSettings
from dsa_config.declared import settings_of
from dsa_config.live import live

NOT_READ = "no code of this version reads it"


def unread(cls: type[LiveSettings]) -> frozenset[str]:
    """The settings that no code reads; none where that cannot be known, because a reading package is not installed."""
    found = readers_of(cls)
    return frozenset() if found is None else frozenset(settings_of(cls)) - set(found)


@functools.cache
def readers_of(cls: type[LiveSettings]) -> Mapping[str, tuple[str, ...]] | None:
    """For each setting that is read, the places that read it, as `FILE:LINE` below the package's folder.

    None where the class names no package in `read_by`, or one that is not installed or not readable.
    """
    folders = [_folder_of(package) for package in cls.read_by]
    if not folders or None in folders:
        return None
    try:
        files = [
            _File(path, path.relative_to(folder.parent))
            for folder in folders
            if folder is not None
            for path in sorted(folder.rglob("*.py"))
        ]
    except (OSError, ValueError, SyntaxError):  # a file that cannot be read may hold the only reader of a setting
        return None
    found: dict[str, list[str]] = {}
    patterns: list[_Pattern] = []
    for file in files:
        for place, what in file.reads(live(cls)):
            if isinstance(what, _Pattern):
                patterns.append(what)
            else:
                found.setdefault(what, []).append(place)
    for file in files:
        for pattern in patterns:
            for place, filling in file.literal_calls(pattern.module):
                found.setdefault(pattern.filled(filling), []).append(place)
    return {name: tuple(found[name]) for name in settings_of(cls) if name in found}


@dataclass(frozen=True, slots=True)
class _Pattern:
    """A setting's name that is put together in a function of a module: `{op}_backend`."""

    before: str
    after: str
    module: str

    def filled(self, text: str) -> str:
        return f"{self.before}{text}{self.after}"


@dataclass(slots=True)
class _File:
    """One source file, parsed."""

    path: Path
    shown: Path
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.path.read_bytes(), str(self.path))

    @property
    def module(self) -> str:
        parts = self.shown.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def reads(self, target: Any) -> Iterator[tuple[str, str | _Pattern]]:
        """Places where the live object is read: the setting, or the pattern of its name."""
        names = self._names_of(target)
        if not names:
            return
        for node in ast.walk(self.tree):
            match node:
                case ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr=name):
                    if ast.unparse(owner) in names:
                        yield self._place(node), name
                case ast.Call(func=ast.Name("getattr"), args=[owner, ast.Constant(str(name)), *_]):
                    if ast.unparse(owner) in names:
                        yield self._place(node), name
                case ast.Call(func=ast.Name("getattr"), args=[owner, ast.JoinedStr(values=pieces), *_]):
                    texts = [str(piece.value) if isinstance(piece, ast.Constant) else None for piece in pieces]
                    if ast.unparse(owner) in names and texts.count(None) == 1:
                        hole = texts.index(None)
                        before, after = ("".join(filter(None, part)) for part in (texts[:hole], texts[hole:]))
                        yield self._place(node), _Pattern(before, after, self.module)

    def literal_calls(self, module: str) -> Iterator[tuple[str, str]]:
        """Calls of a module's functions with a literal text as first argument: the place, and the text."""
        called = {name for source, _, name in self._imports() if source == module}
        for node in ast.walk(self.tree):
            match node:
                case ast.Call(func=ast.Name(name), args=[ast.Constant(str(text)), *_]) if name in called:
                    yield self._place(node), text

    def _names_of(self, target: Any) -> set[str]:
        """How the file writes the live object: `settings`, or `dsa_config.settings`."""
        names = {here for module, name, here in self._imports() if _attribute(module, name) is target}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    module = sys.modules.get(alias.name)
                    shared = [name for name, it in vars(module).items() if it is target] if module else []
                    names |= {f"{alias.asname or alias.name}.{name}" for name in shared}
        return names

    def _imports(self) -> Iterator[tuple[str, str, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
                for alias in node.names:
                    yield node.module, alias.name, alias.asname or alias.name

    def _place(self, node: ast.expr) -> str:
        return f"{self.shown}:{node.lineno}"


def _attribute(module: str, name: str) -> Any:
    return vars(sys.modules[module]).get(name) if module in sys.modules else None


def _folder_of(package: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0]) if places else None
