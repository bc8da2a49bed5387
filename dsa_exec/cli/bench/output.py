"""The files of a report: looked at before anything is measured, written after it."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

from dsa_exec.cli.bench.asked import BenchError
from dsa_exec.cli.picture_file import require_drawable

STANDARD_OUTPUT = Path("-")


def file_of(option: str, text: str | None) -> Path | None:
    """The file that an option names.

    Raises:
        BenchError: its name is empty.
    """
    if text == "":
        raise BenchError(f"{option} '': is no file's name")
    return None if text is None else Path(text)


def require_writable(plot: Path | None, json_file: Path | None) -> None:
    """Check what can be checked before there is anything to write.

    Raises:
        CannotDraw: the picture cannot be drawn there.
        BenchError: the report is for a folder, or for a file in none, or for that of the picture.
        OSError: standard output is closed.
    """
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF), "standard output")
    if plot is not None:
        require_drawable(plot)
    if json_file is None or json_file == STANDARD_OUTPUT:
        return
    if json_file.is_dir():
        raise BenchError(f"--json {json_file}: is a folder; wanted a file, or - for standard output")
    if not json_file.parent.is_dir():
        raise BenchError(f"--json {json_file}: there is no folder {json_file.parent}")
    if plot is not None and _are_same(plot, json_file):
        raise BenchError(f"--json {json_file}: is the file of --plot {plot}; wanted another")


def write_json(file: Path, document: dict[str, Any]) -> None:
    """Write a report.

    Raises:
        OSError: the file cannot be written; it has the file's name.
    """
    try:
        file.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", "utf-8")
    except OSError as error:  # the system names the file only where it cannot be opened
        raise OSError(error.errno, error.strerror, str(file)) from None


def _are_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file, be it by links."""
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    return one.exists() and other.exists() and one.samefile(other)
