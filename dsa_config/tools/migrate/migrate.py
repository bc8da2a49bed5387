"""Files to reports: every file is read and decided first, and written only when all have been."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from dsa_config.tools.migrate.decide import ByHand
from dsa_config.tools.migrate.errors import NotReplaceable, Unparsable
from dsa_config.tools.migrate.formats import Kind, reader_of
from dsa_config.tools.migrate.formats.systemd import environment_files
from dsa_config.tools.migrate.kinds import is_unit, kind_of
from dsa_config.tools.migrate.lines import line_of
from dsa_config.tools.migrate.names import Names
from dsa_config.tools.migrate.renamings import Renaming
from dsa_config.tools.migrate.replacing import replace_file
from dsa_config.tools.migrate.rewrite import Change, rewrite
from dsa_config.tools.migrate.walk import Found, files_of

MENTION = "mentioned, not migrated: this kind of file is not known"
BOM = b"\xef\xbb\xbf"
HEAD_BYTES = 8192
"""A file with a null byte among its first is binary."""
LARGEST_BYTES = 64 * 2**20

Status = Literal["unchanged", "changed", "refused", "skipped"]


@dataclass(frozen=True, slots=True)
class FileReport:
    """What becomes of one file.

    Attributes:
        path: as it was given or found.
        kind: its format; None where it is not known.
        status: `changed` (or to be changed), `unchanged`, `refused` (an error) or `skipped` (an unknown kind).
        changes: the names that change.
        by_hand: what a person must look at.
        error: why it was refused.
        old: its bytes.
        new: its migrated bytes.
        backup: where the old bytes are kept, once written.
    """

    path: Path
    kind: Kind | None
    status: Status
    changes: list[Change] = field(default_factory=list)
    by_hand: list[ByHand] = field(default_factory=list)
    error: str | None = None
    old: bytes = b""
    new: bytes = b""
    backup: Path | None = None


def migrate(paths: Iterable[Path], renamings: Sequence[Renaming], *, write: bool = False) -> list[FileReport]:
    """Migrate files and folders: those named, and of folders those that mention an old name.

    Args:
        paths: files and folders.
        renamings: what to rename.
        write: replace the files; otherwise only tell what would be done.

    Raises:
        ExtraMissing: a parser that is needed is not installed. Nothing has been written.
    """
    names = Names(renamings)
    files = list(files_of(paths))
    referred = {
        Path(name).name for found in files if is_unit(found.path) for name in environment_files(_text_of(_load(found)))
    }
    reports = ((found, _report(found, _load(found), names, referred)) for found in files)
    told = [it for found, it in reports if found.named or it.status != "unchanged" or it.by_hand]
    return [_written(report) for report in told] if write else told


def _load(found: Found) -> bytes | str:
    """The bytes of a file, only the first of a binary one; or why it cannot be read."""
    if found.error is not None:
        return f"cannot be read: {found.error.strerror}"
    try:
        with open(found.path, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return "it is no regular file"
            head = file.read(HEAD_BYTES)
            if b"\0" in head:
                return head
            if status.st_size > LARGEST_BYTES:
                return f"it has {status.st_size} bytes; more than {LARGEST_BYTES} are not looked at"
            return head + file.read()
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _text_of(content: bytes | str) -> str:
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else ""


def _report(found: Found, content: bytes | str, names: Names, referred: set[str]) -> FileReport:
    path = found.path
    if isinstance(content, str):
        return FileReport(path, None, "refused", error=content)
    mark = BOM if content.startswith(BOM) else b""
    text = content[len(mark) :].decode("utf-8", "replace")
    kind: Kind | None = None
    if names.mentioned(text) or found.named:
        kind = "environment" if path.name in referred else kind_of(path, text)
    if not names.mentioned(text) or b"\0" in content[:HEAD_BYTES]:
        return FileReport(path, kind, "unchanged")
    if kind is None:
        mentions = [ByHand(line_of(text, it.start()), it[0], MENTION) for it in names.find_old(text)]
        return FileReport(path, None, "skipped" if mentions else "unchanged", by_hand=mentions)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return FileReport(path, kind, "refused", error=f"line {line}: it is not UTF-8")
    try:
        done = rewrite(text, reader_of(kind), names)
    except Unparsable as error:
        return FileReport(path, kind, "refused", error=str(error))
    status: Status = "changed" if done.changes else "unchanged"
    new = mark + done.text.encode()
    return FileReport(path, kind, status, done.changes, done.by_hand, old=content, new=new)


def _written(report: FileReport) -> FileReport:
    if report.status != "changed":
        return report
    try:
        return replace(report, backup=replace_file(report.path, report.old, report.new))
    except NotReplaceable as error:
        why = error.why
    except OSError as error:
        why = f"cannot be written: {error.strerror}"
    return replace(report, status="refused", error=why)
