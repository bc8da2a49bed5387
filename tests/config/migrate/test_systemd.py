"""Systemd units."""

from __future__ import annotations

import pytest
from hypothesis import given
from migrations import NEW, OLD, canonical, expect_by_hand, expect_renamed, expect_safe, migrated, texts_of

from dsa_config.tools.migrate.errors import Unparsable
from dsa_config.tools.migrate.formats.systemd import environment_files


@pytest.mark.parametrize(
    "text",
    [
        "Environment=@=0",
        'Environment="A=x y" \'@=0\' B=1 "@=a b"',
        "Environment=A=1 \\\n# why\n  @=0 \\\n  B=2",
        "PassEnvironment=A @ B\nUnsetEnvironment=@",
        "ExecStart=/usr/bin/env @=0 serve --x=${@} $@\r\n; the end",
    ],
)
def test_names_are_renamed_in_place(text):
    """Assignments in and out of quotes, over several lines, lists of names, expansions in commands."""
    text = f"[Unit]\nDescription=x\n[Service]\n{text}"
    expect_renamed("systemd", text.replace("@", OLD), text.replace("@", NEW))


def test_comments_are_left():
    """Of both kinds; a `#` within a line starts none."""
    text = f"# {OLD}\n; {OLD}\n[Service]\n"
    assert (migrated("systemd", text).text, migrated("systemd", text).by_hand) == (text, [])
    expect_renamed("systemd", f"[Service]\nEnvironment=A=# {OLD}=1", f"[Service]\nEnvironment=A=# {NEW}=1")


def test_what_a_tool_cannot_do_is_reported():
    """Conflicts, references to values that change, and prose."""
    expect_by_hand("systemd", f"[Service]\nEnvironment={OLD}=0\nEnvironment={NEW}=1\n", "a conflict")
    expect_by_hand("systemd", "[Service]\nEnvironment=WAIT_MS=5\nExecStart=/x $WAIT_MS\n", "no literal")
    expect_by_hand("systemd", f"[Unit]\nDescription=with {OLD}\n", "does not understand")


@pytest.mark.parametrize("text", ["Environment=@=1\n", "[Service]\nwhat is @\n"])
def test_a_broken_unit_is_refused(text):
    """An entry outside every section, or a line that is no entry."""
    with pytest.raises(Unparsable, match=r"line \d: .* is no entry of a section"):
        migrated("systemd", text.replace("@", OLD))


def test_a_units_environment_files_are_known():
    """With and without the dash that says that they may be missing."""
    text = '[Service]\nEnvironmentFile=-/etc/default/a\n EnvironmentFile = "/b.txt"\n#EnvironmentFile=/c\n'
    assert environment_files(text) == ["/etc/default/a", "/b.txt"]


@given(texts_of("=", '"', "'", "#", "[Service]\n", "Environment=", "\\\n", "$", "${", "}", ";", "PassEnvironment="))
def test_hostile_text(text):
    """Only names change."""
    expect_safe("systemd", f"[Service]\n{text}", canonical)
