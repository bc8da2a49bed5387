"""Environment files of systemd and of others: assignments and comments, nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from migrations import NEW, OLD, canonical, expect_by_hand, expect_renamed, expect_safe, migrated, texts_of

from dsa_config.tools.migrate.errors import Unparsable


@pytest.mark.parametrize(
    "text", ["@=1\n; a comment\n# another\nB=2", "export @='1'", "A=1 \\\n  B\n@=1\r\n", 'A="x ${@} y"\n', "@= \n"]
)
def test_names_are_renamed_in_place(text):
    """Keys, exports and expansions, also after joined lines."""
    expect_renamed("environment", text.replace("@", OLD), text.replace("@", NEW))


def test_comments_are_left():
    """Both kinds of comment."""
    text = f"; {OLD}=1\n# {OLD}=1\nA=1\n"
    assert migrated("environment", text).by_hand == []
    assert migrated("environment", text).text == text


def test_conflicts_are_reported():
    """Both names in one file."""
    expect_by_hand("environment", f"{OLD}=1\n{NEW}=2\n", "a conflict")
    expect_by_hand("environment", f"{OLD} = 1\n", "does not understand")


def test_a_broken_file_is_refused():
    """With the line."""
    with pytest.raises(Unparsable, match="line 2: 'what is this' is no assignment"):
        migrated("environment", f"{OLD}=1\nwhat is this\n")


@given(texts_of("=", "'", "#", ";", "\\\n", "$", "export "))
def test_hostile_text(text):
    """Only names change."""
    expect_safe("environment", text, canonical)
