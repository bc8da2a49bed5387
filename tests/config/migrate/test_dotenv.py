"""Dotenv files."""

from __future__ import annotations

import io

import pytest
from dotenv import dotenv_values
from hypothesis import given
from migrations import NEW, OLD, canonical_leaves, expect_by_hand, expect_renamed, expect_safe, migrated, texts_of

from dsa_config.tools.migrate.errors import Unparsable


@pytest.mark.parametrize(
    "line",
    [
        "@=0",
        "export @ = 0",
        "'@'='0' # why",
        '@="a b"',
        "@=",
        "@",
        "A=${@:-1}",
        "'a b#'='${@}' # more",
        'A="$@"',
        'CMD="env @=1 serve"',
        "\r\n@=0\r\n\r\nB=1",
        "@=0\n@=1\n",
        "A=1\n# a comment\n  @=1",
    ],
)
def test_names_are_renamed_in_place(line):
    """Keys, exports, quoted keys, expansions and assignments within values; all else stays byte for byte."""
    expect_renamed("dotenv", line.replace("@", OLD), line.replace("@", NEW))


def test_comments_are_left():
    """A comment may speak of history."""
    text = f"# {OLD} was here\nA=1 # {OLD}=2\n"
    done = migrated("dotenv", text)
    assert (done.text, done.changes, done.by_hand) == (text, [], [])


def test_longer_names_are_other_names():
    """A name is a whole token."""
    text = f"{OLD}_EXTRA=1\nMY_{OLD}=2\n"
    assert migrated("dotenv", text).text == text


def test_values_change_with_their_names():
    """Milliseconds become seconds, in whatever quotes; an inverted switch is inverted."""
    expect_renamed("dotenv", "WAIT_MS='1500'\nDISABLE_IT=1 # off\n", "WAIT_S='1.5'\nENABLE_IT=0 # off\n")
    expect_renamed("dotenv", "WAIT_MS=2000", "WAIT_S=2")
    expect_renamed("dotenv", "WAIT_MS=0\n", "WAIT_S=0\n")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("WAIT_MS=$OTHER\n", ["WAIT_MS", "no literal"]),
        ("WAIT_MS=soon\n", ["WAIT_MS", "'soon' cannot be converted", "no number of milliseconds"]),
        ("DISABLE_IT=odd\n", ["may need quotes here"]),
        ("WAIT_MS=1\nA=$WAIT_MS\n", ["renamed everywhere in a file or nowhere: see line 2"]),
        ("GONE=1\n", ["GONE was removed without replacement"]),
        ("MERGED=1\n", ["MERGED and HALF became WHOLE"]),
        (f"{OLD}=1\n{NEW}=1\n", [f"{NEW} is set too, at line 2, to the same text: remove {OLD}"]),
        (f"{OLD}=1\n{NEW}=0\n", [f"{NEW} is set too, at line 2, to '0', and {OLD} to '1': a conflict"]),
        (f"{OLD}=$A\n{NEW}=0\n", ["decide which one holds"]),
        (f"{OLD}=1\nOLDER_FUSE_TOPK=1\n", ["OLDER_FUSE_TOPK is set too", "to the same text"]),
        ("WAIT_MS=1500\nWAIT_S=1.5\n", ["WAIT_S is set too, at line 2, to the same text"]),
        ("WAIT_MS=never\nWAIT_S=1.5\n", ["a conflict"]),
        (f"A='see {OLD}'\n", ["text that this tool does not understand"]),
    ],
)
def test_what_a_tool_cannot_do_is_reported(text, parts):
    """References, conflicts, removed and merged names: the file stays, and a sentence says why."""
    expect_by_hand("dotenv", text, *parts)


def test_a_broken_file_is_refused():
    """With the line."""
    with pytest.raises(Unparsable, match="line 2: .* is no assignment"):
        migrated("dotenv", f"{OLD}=1\n='x\n")


@given(texts_of("=", "'", '"', "#", "export ", "$", "${", "}", ":-", "1", "\\", "\r\n"))
def test_hostile_text(text):
    """python-dotenv reads the same keys in the same order from what is written."""
    expect_safe(
        "dotenv", text, lambda it: canonical_leaves(dict(dotenv_values(stream=io.StringIO(it), interpolate=False)))
    )
