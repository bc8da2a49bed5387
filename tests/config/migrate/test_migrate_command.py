"""`dsa config migrate`: which files it looks at, what it prints, what it writes, how it exits."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from dsa_config import DSASettings
from dsa_config.cli import app
from dsa_config.declared import settings_of
from dsa_config.tools.migrate import formats
from dsa_config.tools.migrate import migrate as migration
from dsa_config.tools.migrate.errors import ExtraMissing
from dsa_config.tools.migrate.kinds import kind_of
from dsa_config.tools.migrate.migrate import migrate
from dsa_config.tools.migrate.renamings import renamings_of

OLD, NEW = "SGLANG_NSA_FUSE_TOPK", "SGLANG_DSA_FUSE_TOPK"
RENAMINGS = renamings_of(DSASettings)


def run(*arguments):
    return CliRunner().invoke(app, ["migrate", *map(str, arguments)])


def test_the_renamings_are_those_of_the_declarations():
    """Every deprecated name, with the canonical one."""
    pairs = {(it.old, it.new) for it in RENAMINGS}
    assert (OLD, NEW) in pairs
    assert len(pairs) == sum(len(it.deprecated) for it in settings_of(DSASettings).values())


def test_a_dry_run_prints_a_diff_and_writes_nothing(tmp_path):
    """The diff applies to the file as it is; exit 1, because changes are pending."""
    file = tmp_path / ".env"
    file.write_bytes(f"A=1\n{OLD}=0".encode())
    done = run(file)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"--- a{file}",
        f"+++ b{file}",
        "@@ -1,2 +1,2 @@",
        " A=1",
        f"-{OLD}=0",
        "\\ No newline at end of file",
        f"+{NEW}=0",
        "\\ No newline at end of file",
    ]
    assert file.read_bytes() == f"A=1\n{OLD}=0".encode()
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_the_diff_is_one_that_patch_takes(tmp_path):
    """Line ends of both kinds included."""
    file = tmp_path / "a.env"
    file.write_bytes(f"A=1\r\n{OLD}=0\r\nB=é\n".encode())
    done = subprocess.run(
        [sys.executable, "-c", "from dsa_exec.cli import main; main()", "config", "migrate", str(file)],
        capture_output=True,
        check=False,
    )
    assert done.stdout.endswith(f"-{OLD}=0\r\n+{NEW}=0\r\n B=é\n".encode())
    assert (done.returncode, done.stderr) == (1, b"")


def test_write_keeps_every_other_byte(tmp_path):
    """Byte order mark, line ends, comments; a backup; exit 0, and the second run has nothing to do."""
    file = tmp_path / "serve.sh"
    before = f"\ufeff# {OLD}\r\nexport  {OLD}=0\t# é\r\n\r\n".encode()
    file.write_bytes(before)
    done = run(file, "--write")
    assert done.exit_code == 0
    assert file.read_bytes() == f"\ufeff# {OLD}\r\nexport  {NEW}=0\t# é\r\n\r\n".encode()
    assert (tmp_path / "serve.sh.bak").read_bytes() == before
    assert f"{file}: 1 name changed; the old file is {file}.bak" in done.stderr
    again = run(tmp_path, "--write")
    assert (again.exit_code, again.output) == (0, "")


def test_json_has_everything(tmp_path):
    """One document with each file's kind, status, changes, what is left for a hand, and errors."""
    (tmp_path / "a.env").write_text(f"{OLD}=1\n")
    (tmp_path / "b.toml").write_text(f"{OLD} = \n")
    (tmp_path / "c.md").write_text(f"\nsee {OLD}\n")
    (tmp_path / "d.json").write_text(f'{{"{OLD}": 1, "{NEW}": 2}}')
    (tmp_path / "e.json").write_text("{}")
    done = run(tmp_path, "--json")
    assert done.exit_code == 2
    document = json.loads(done.stdout)
    assert document["written"] is False
    a, b, c, d = document["files"]
    assert a == {
        "path": str(tmp_path / "a.env"),
        "kind": "dotenv",
        "status": "changed",
        "changes": [{"line": 1, "old": OLD, "new": NEW}],
        "by_hand": [],
        "error": None,
    }
    assert (b["kind"], b["status"], b["changes"]) == ("toml", "refused", [])
    assert b["error"].startswith("line 1: ")
    assert (c["kind"], c["status"]) == (None, "skipped")
    assert c["by_hand"] == [{"line": 2, "name": OLD, "why": "mentioned, not migrated: this kind of file is not known"}]
    assert (d["status"], len(d["by_hand"])) == ("unchanged", 1)


def test_what_is_left_is_said_with_file_and_line(tmp_path):
    """On standard error, so that the diff stays a diff; exit 1."""
    file = tmp_path / "a.env"
    file.write_text(f"{OLD}=1\n{NEW}=2\n")
    done = run(file)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{file}:1: {OLD}: {NEW} is set too, at line 2")


def test_a_file_that_cannot_be_read_or_decoded_is_exit_2(tmp_path):
    """With one sentence for each, and the others are done all the same."""
    latin, good = tmp_path / "latin.env", tmp_path / "good.env"
    latin.write_bytes(f"A=1\n{OLD}=\xe9\n".encode("latin-1"))
    good.write_text(f"{OLD}=1\n")
    done = run(tmp_path / "missing", latin, good, "--write")
    assert done.exit_code == 2
    assert f"{tmp_path / 'missing'}: left as it is: cannot be read: No such file or directory" in done.stderr
    assert f"{latin}: left as it is: line 2: it is not UTF-8" in done.stderr
    assert good.read_text() == f"{NEW}=1\n"


def test_what_is_no_file_of_a_size_to_read_is_exit_2(tmp_path, monkeypatch):
    """A device, a folder that cannot be listed, a file too large: one sentence for each."""
    large = tmp_path / "large.json"
    large.write_text(f'["{OLD}"]')
    monkeypatch.setattr(migration, "LARGEST_BYTES", 5)
    assert "more than 5 are not looked at" in run(tmp_path).stderr
    assert run("/dev/null").stderr == "/dev/null: left as it is: it is no regular file\n"
    real = os.scandir

    def refused(path):
        if os.fspath(path) == os.fspath(tmp_path):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    done = run(tmp_path)
    assert done.exit_code == 2
    assert done.stderr == f"{tmp_path}: left as it is: cannot be read: Permission denied\n"


def test_a_file_that_cannot_be_replaced_is_exit_2(tmp_path, monkeypatch):
    """For want of one name, or of space on the disk."""
    file = tmp_path / "a.env"
    file.write_text(f"{OLD}=1\n")
    (tmp_path / "b.env").hardlink_to(file)
    done = run(file, "--write")
    assert done.exit_code == 2
    assert "hard links" in done.stderr
    (tmp_path / "b.env").unlink()

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = run(file, "--write")
    assert done.exit_code == 2
    assert "cannot be written: No space left on device" in done.stderr
    assert file.read_text() == f"{OLD}=1\n"


def test_a_folder_is_walked(tmp_path):
    """All but version control, environments, packages of others, binaries and our own backups; each file once."""
    for name in (".git", "node_modules", "venv", "mine", "deep/er"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.env").write_text(f"{OLD}=1\n")
    (tmp_path / "mine" / "pyvenv.cfg").write_text("")
    (tmp_path / "a.env.bak").write_text(f"{OLD}=1\n")
    (tmp_path / "a.env.bak.1").write_text(f"{OLD}=1\n")
    (tmp_path / "binary").write_bytes(f"\0{OLD}\0".encode())
    (tmp_path / "other.md").write_text(f"{OLD}_EXTRA\n")
    (tmp_path / "link.env").symlink_to(tmp_path / "deep/er/a.env")
    (tmp_path / "dangling.env").symlink_to(tmp_path / "nowhere")
    reports = migrate([tmp_path, tmp_path / "deep"], RENAMINGS)
    assert [str(it.path.relative_to(tmp_path)) for it in reports] == ["link.env"]


def test_a_named_file_is_reported_even_if_nothing_is_to_be_done(tmp_path):
    """So that its kind is seen."""
    file = tmp_path / "a.toml"
    file.write_text("a = 1\n")
    assert json.loads(run(file, "--json").stdout)["files"][0]["status"] == "unchanged"
    assert (run(file).exit_code, run(file).output) == (0, "")


def test_a_units_environment_file_is_migrated(tmp_path):
    """It is known by the unit that names it, whatever it is called."""
    (tmp_path / "serve.service").write_text("[Service]\nEnvironmentFile=-/etc/serve/settings.txt\n")
    (tmp_path / "settings.txt").write_text(f"; why\n{OLD}=1\n")
    (report,) = migrate([tmp_path], RENAMINGS, write=True)
    assert (report.kind, report.status) == ("environment", "changed")
    assert (tmp_path / "settings.txt").read_text() == f"; why\n{NEW}=1\n"


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        (".env.local", "", "dotenv"),
        ("prod.env", "", "dotenv"),
        (".envrc", "", "shell"),
        ("serve", "#!/usr/bin/env bash\n", "shell"),
        ("serve", "#!/usr/bin/python3.12\n", "python"),
        ("Dockerfile.rocm", "", "dockerfile"),
        ("rocm.Dockerfile", "", "dockerfile"),
        ("compose.yml", "", "yaml"),
        ("serve@.service", "", "systemd"),
        ("serve.service.d/10-env.conf", "", "systemd"),
        ("10-env.conf", "A=1\n", "environment"),
        ("sglang", "# of /etc/default\nA=1\n\nB=2\n", "environment"),
        ("notes", "A=1\nand text\n", None),
        ("empty", "", None),
    ],
)
def test_kinds(tmp_path, name, text, kind):
    """By name, by first line, by content."""
    assert kind_of(tmp_path / name, text) == kind


def test_a_missing_parser_is_one_sentence(tmp_path, monkeypatch):
    """It names the package and the extra, before anything is written."""
    (tmp_path / "a.env").write_text(f"{OLD}=1\n")
    (tmp_path / "b.py").write_text(f"x = '{OLD}'\n")
    monkeypatch.setitem(sys.modules, "libcst", None)
    with pytest.raises(ExtraMissing, match=r"^migrating python files needs libcst, .* pip install 'dsa\[migrate\]'$"):
        migrate([tmp_path], RENAMINGS, write=True)
    assert (tmp_path / "a.env").read_text() == f"{OLD}=1\n"


def test_the_command_costs_nothing_until_it_runs():
    """The settings command loads no parser."""
    done = subprocess.run(
        [sys.executable, "-c", "import dsa_config.cli, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    packages = {module for modules in formats.PACKAGES.values() for module in modules}
    assert packages - {"dotenv"} == packages - {"dotenv"} - set(done.stdout.split())
