"""A file is replaced whole, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dsa_config.tools.migrate import replacing
from dsa_config.tools.migrate.errors import NotReplaceable
from dsa_config.tools.migrate.replacing import replace_file

OLD, NEW = b"old content\n" * 1000, b"new content, longer\n" * 1000

DIES = """
import os, sys
from pathlib import Path
from dsa_config.tools.migrate.replacing import replace_file

name, calls, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
real = getattr(os, name)
left = calls

def dying(*arguments, **named):
    global left
    left -= 1
    if left < 0:
        os._exit(77)
    return real(*arguments, **named)

setattr(os, name, dying)
replace_file(path, path.read_bytes(), b"new content, longer\\n" * 1000)
"""


@pytest.fixture
def file(tmp_path):
    """A file of mode 640 with the old content."""
    path = tmp_path / "settings.env"
    path.write_bytes(OLD)
    path.chmod(0o640)
    return path


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_old_file_is_kept_beside_the_new(file):
    """Content and mode, and no backup is ever overwritten."""
    assert replace_file(file, OLD, NEW).name == "settings.env.bak"
    assert replace_file(file, NEW, OLD).name == "settings.env.bak.1"
    assert replace_file(file, OLD, NEW).name == "settings.env.bak.2"
    assert names_in(file.parent) == ["settings.env", "settings.env.bak", "settings.env.bak.1", "settings.env.bak.2"]
    assert [path.read_bytes() for path in sorted(file.parent.iterdir())] == [NEW, OLD, NEW, OLD]
    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o640}


def test_a_symbolic_link_stays(file, tmp_path):
    """What it leads to is replaced, and the backup lies beside that."""
    link = tmp_path / "folder" / "link.env"
    link.parent.mkdir()
    link.symlink_to(file)
    replace_file(link, OLD, NEW)
    assert link.is_symlink()
    assert (link.read_bytes(), file.is_symlink()) == (NEW, False)
    assert names_in(link.parent) == ["link.env"]
    assert names_in(tmp_path) == ["folder", "settings.env", "settings.env.bak"]


@pytest.mark.parametrize(
    ("name", "calls"),
    [(name, calls) for name in ("fsync", "fchmod", "link", "unlink", "replace", "close") for calls in (0, 1, 2)],
)
def test_killed_at_any_point_it_leaves_the_old_or_the_new_file(file, name, calls):
    """The process dies in a system call: the file is whole, and so is a backup if there is one."""
    command = [sys.executable, "-c", DIES, name, str(calls), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 77}, done.stderr
    content = file.read_bytes()
    assert content in {OLD, NEW}
    assert content == NEW or done.returncode == 77
    backup = file.with_name("settings.env.bak")
    assert backup.exists() or content == OLD
    assert not backup.exists() or backup.read_bytes() == OLD


@pytest.mark.parametrize("name", ["fsync", "fchmod", "link", "replace"])
def test_a_failure_leaves_the_file_and_nothing_half(file, monkeypatch, name):
    """An error of the disk goes to the caller; no temporary file stays."""

    def fails(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, name, fails)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, OLD, NEW)
    assert file.read_bytes() == OLD
    assert set(names_in(file.parent)) <= {"settings.env", "settings.env.bak"}


def test_a_file_that_has_changed_is_not_replaced(file, monkeypatch):
    """Neither before the backup is made nor after."""
    with pytest.raises(NotReplaceable, match="has changed since it was read"):
        replace_file(file, b"something else", NEW)
    real = replacing._backup

    def meanwhile(*arguments):
        backup = real(*arguments)
        file.write_bytes(b"of somebody else")
        return backup

    monkeypatch.setattr(replacing, "_backup", meanwhile)
    with pytest.raises(NotReplaceable, match="has changed since it was read"):
        replace_file(file, OLD, NEW)
    assert file.read_bytes() == b"of somebody else"
    assert names_in(file.parent) == ["settings.env"]


def test_hard_links_are_not_parted(file):
    """The other name would keep the old content."""
    os.link(file, file.with_name("other.env"))
    with pytest.raises(NotReplaceable, match="one of 2 hard links"):
        replace_file(file, OLD, NEW)
    assert file.read_bytes() == OLD


def test_an_owner_that_cannot_be_kept_is_a_refusal(file, monkeypatch):
    """A new file would be ours; where the owner can be set, it is."""
    real = os.fstat
    asked = []

    def of_another(handle):
        status = real(handle)
        return os.stat_result((*status[:4], status.st_uid + 1, *status[5:10]))

    def refused(*arguments):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fstat", of_another)
    monkeypatch.setattr(os, "fchown", refused)
    with pytest.raises(NotReplaceable, match="its owner cannot be kept: Operation not permitted"):
        replace_file(file, OLD, NEW)
    assert names_in(file.parent) == ["settings.env"]
    monkeypatch.setattr(os, "fchown", lambda handle, user, group: asked.append((user, group)))
    replace_file(file, OLD, NEW)
    assert set(asked) == {(file.stat().st_uid, file.stat().st_gid)}


def test_a_folder_that_cannot_be_synced_is_no_reason_to_fail(file, monkeypatch):
    """The file is there; some file systems know no such call."""
    real = os.open

    def refused(path, *arguments):
        if path == file.parent:
            raise OSError(22, "Invalid argument")
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", refused)
    replace_file(file, OLD, NEW)
    assert file.read_bytes() == NEW
