"""A file is replaced whole: whoever reads it, and whenever the process dies, there is the old or the new one."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from dsa_config.tools.migrate.errors import NotReplaceable


def replace_file(path: Path, old: bytes, new: bytes) -> Path:
    """Replace a file's content and keep the old one in `NAME.bak`, or `NAME.bak.1` and so on where there is one.

    A symbolic link stays; the file that it leads to is replaced. Mode and owner are kept.

    Args:
        path: the file.
        old: what it held when it was read.
        new: what it is to hold.

    Returns:
        The backup.

    Raises:
        NotReplaceable: it has changed since, has several hard links, or its owner cannot be kept.
        OSError: its folder cannot be written to.
    """
    target = Path(os.path.realpath(path))
    status = target.stat()
    if status.st_nlink > 1:
        raise NotReplaceable(f"it is one of {status.st_nlink} hard links, which a new file would part")
    if target.read_bytes() != old:
        raise NotReplaceable("it has changed since it was read")
    prepared = _written(target, new, status)
    try:
        backup = _backup(target, old, status)
        if target.read_bytes() != old:
            backup.unlink()
            raise NotReplaceable("it has changed since it was read")
        os.replace(prepared, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(prepared)
        raise
    _sync_folder(target.parent)
    return backup


def _written(target: Path, content: bytes, status: os.stat_result) -> str:
    """A complete file beside the target, on the disk, with its mode and owner."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.dsa-migrate-")
    try:
        with open(handle, "wb") as file:
            file.write(content)
            _like(file.fileno(), status)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return name


def _backup(target: Path, content: bytes, status: os.stat_result) -> Path:
    prepared = _written(target, content, status)
    try:
        number = 0
        while True:
            backup = target.with_name(f"{target.name}.bak{f'.{number}' if number else ''}")
            try:
                os.link(prepared, backup)  # fails where there is one, unlike a rename
            except FileExistsError:
                number += 1
            else:
                return backup
    finally:
        os.unlink(prepared)


def _like(handle: int, status: os.stat_result) -> None:
    made = os.fstat(handle)
    if (made.st_uid, made.st_gid) != (status.st_uid, status.st_gid):
        try:
            os.fchown(handle, status.st_uid, status.st_gid)
        except OSError as error:
            raise NotReplaceable(f"its owner cannot be kept: {error.strerror}") from None
    os.fchmod(handle, stat.S_IMODE(status.st_mode))


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot; the content is on the disk in any case
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
