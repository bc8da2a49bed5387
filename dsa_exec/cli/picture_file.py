"""The file of a picture: whether it can be drawn, and drawing it there."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from dsa_exec.core.errors import DsaError

FORMATS = (".png", ".svg", ".pdf")
DOTS_PER_INCH = 120


class CannotDraw(DsaError):
    """A picture that cannot be drawn: `file`, `reason`."""

    def __init__(self, file: Path, reason: str) -> None:
        self.file = file
        self.reason = reason
        super().__init__(f"--plot {file}: {reason}")


def require_drawable(file: Path) -> None:
    """Check what can be checked before there is anything to draw.

    Raises:
        CannotDraw: the file is a folder, or in none, or of another format; or matplotlib is not installed.
    """
    if file.is_dir():
        raise CannotDraw(file, "is a folder; wanted a file")
    if file.suffix.lower() not in FORMATS:
        raise CannotDraw(file, f"is no picture's name; wanted one that ends in {', '.join(FORMATS)}")
    if not file.parent.is_dir():
        raise CannotDraw(file, f"there is no folder {file.parent}")
    try:
        import matplotlib
        import matplotlib.figure  # noqa: F401
    except Exception as error:  # of code that is not ours: whatever its import raises
        if isinstance(error, ModuleNotFoundError) and error.name == "matplotlib":
            raise CannotDraw(file, "needs matplotlib: pip install 'dsa[plot]'") from None
        reason = next(iter(str(error).splitlines()), "no reason given")
        raise CannotDraw(file, f"matplotlib cannot be imported: {type(error).__name__}: {reason}") from None


def save(figure: Any, file: Path) -> None:
    """Write a figure of matplotlib.

    Args:
        figure: what to write.
        file: where; its ending says the format.

    Raises:
        OSError: the file cannot be written.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format=file.suffix.lower()[1:], dpi=DOTS_PER_INCH)
    try:
        file.write_bytes(drawn.getvalue())
    except OSError as error:  # the system names the file only where it cannot be opened
        raise OSError(error.errno, error.strerror, str(file)) from None
