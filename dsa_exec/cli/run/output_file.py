"""The file of `--output`: whether results can go there without a loss."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dsa_exec.cli.run.errors import RunError

STANDARD_STREAM = "-"


def require_writable(output: str, prompts: str) -> None:
    """Check before anything is run, and before the file is made anew.

    Args:
        output: the option of this name, which is no standard stream.
        prompts: where the prompts are read from.

    Raises:
        RunError: it names no file, a folder, one in none, or the prompts themselves.
    """
    if not output:
        raise RunError(f"--output {output!r}: names no file; wanted one, or - for standard output")
    file = Path(output)
    if file.is_dir():
        raise RunError(f"--output {output}: is a folder; wanted a file")
    if not file.parent.is_dir():
        raise RunError(f"--output {output}: there is no folder {file.parent}")
    if _is_read_from(file, prompts):
        raise RunError(
            f"--output {output}: is the file of --prompts {prompts}, and results would take the place of the prompts; "
            "wanted another file"
        )


def _is_read_from(file: Path, prompts: str) -> bool:
    """Whether prompts come from a file, under whatever name; devices hold nothing that could be lost."""
    if not file.is_file():
        return False
    try:
        source = os.fstat(sys.stdin.fileno()) if prompts == STANDARD_STREAM else os.stat(prompts)
    except (OSError, ValueError, AttributeError):  # what cannot be read is told by whoever reads it
        return False
    return os.path.samestat(source, file.stat())
