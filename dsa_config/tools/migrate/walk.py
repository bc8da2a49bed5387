"""The files that paths stand for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

SKIPPED = {".git", ".hg", ".svn", "node_modules", "__pycache__", ".venv", "venv", ".tox", ".nox", ".mypy_cache"}
"""Folders that hold nothing that a person wrote."""

_OURS = re.compile(r".*\.bak(?:\.[0-9]+)?|\..*\.dsa-migrate-\w+")


@dataclass(frozen=True, slots=True)
class Found:
    """A file as it was named, whether it was named itself or found in a folder, and why a folder cannot be read."""

    path: Path
    named: bool
    error: OSError | None = None


def files_of(paths: Iterable[Path]) -> Iterator[Found]:
    """The files that paths stand for, each once, in order; of a folder, all but backups and what nobody wrote."""
    seen: set[str] = set()
    for found in _all(paths):
        target = os.path.realpath(found.path)
        if target not in seen:
            seen.add(target)
            yield found


def _all(paths: Iterable[Path]) -> Iterator[Found]:
    for path in paths:
        if not path.is_dir():
            yield Found(path, named=True)
            continue
        unread: list[OSError] = []
        for folder, folders, files in os.walk(path, onerror=unread.append):
            folders[:] = sorted(it for it in folders if it not in SKIPPED and not _is_environment(folder, it))
            for name in sorted(files):
                file = Path(folder, name)
                if not _OURS.fullmatch(name) and file.is_file():
                    yield Found(file, named=False)
        for error in unread:
            yield Found(Path(error.filename), named=True, error=error)


def _is_environment(folder: str, name: str) -> bool:
    return Path(folder, name, "pyvenv.cfg").exists()
