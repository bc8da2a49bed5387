"""What kind of file a path is: by its name, then by its first line, then by what it holds."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from dsa_config.tools.migrate.formats import Kind
from dsa_config.tools.migrate.formats.environment import holds_assignments

_SUFFIXES: dict[str, Kind] = {
    ".bash": "shell",
    ".ksh": "shell",
    ".sh": "shell",
    ".dockerfile": "dockerfile",
    ".env": "dotenv",
    ".json": "json",
    ".py": "python",
    ".pyi": "python",
    ".toml": "toml",
    ".yaml": "yaml",
    ".yml": "yaml",
}
_UNITS = ("service", "socket", "timer", "path", "mount", "target", "slice", "scope", "container", "pod", "kube")
_NAMES: list[tuple[str, Kind]] = [
    (".env", "dotenv"),
    (".env.*", "dotenv"),
    (".flaskenv", "dotenv"),
    (".envrc", "shell"),
    (".bashrc", "shell"),
    (".bash_profile", "shell"),
    (".profile", "shell"),
    ("dockerfile", "dockerfile"),
    ("containerfile", "dockerfile"),
    ("dockerfile.*", "dockerfile"),
    ("containerfile.*", "dockerfile"),
]
_SHELL = re.compile(r"#![^\n]*\b(?:ba|da|k)?sh\b")
_PYTHON = re.compile(r"#![^\n]*\bpython[0-9.]*\b")


def is_unit(path: Path) -> bool:
    """Whether a path is that of a systemd unit or of a drop-in for one."""
    if path.suffix == ".conf":
        return path.parent.name.endswith(tuple(f".{unit}.d" for unit in _UNITS))
    return path.suffix in {f".{unit}" for unit in _UNITS}


def kind_of(path: Path, text: str) -> Kind | None:
    """The kind of a file; None if it is none that can be migrated."""
    name = path.name.casefold()
    by_suffix = _SUFFIXES.get(Path(name).suffix)
    if by_suffix is not None:
        return by_suffix
    for pattern, kind in _NAMES:
        if fnmatch.fnmatchcase(name, pattern):
            return kind
    if is_unit(path):
        return "systemd"
    if _SHELL.match(text):
        return "shell"
    if _PYTHON.match(text):
        return "python"
    return "environment" if holds_assignments(text) else None
