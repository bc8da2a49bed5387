"""TOML."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from migrations import NEW, OLD, canonical_leaves, expect_by_hand, expect_renamed, expect_safe, migrated, texts_of

from dsa_config.tools.migrate.errors import Unparsable


@pytest.mark.parametrize(
    "text",
    [
        '[env]\n@ = "0" # why\nB = 1.5\nC = 2020-01-01 12:00:00.5\n',
        "env.@ = 1\n'@'.x = 2\n",
        '[env."@"]\nx = 1\n[[@]]\n',
        "env = [\n  \"@=1\", # one\n  '@',\n  {@ = 1, b = [1.5, 2]},\n]\n",
        'run = """\nexport @=0\n"quoted" ""\\\n   ${@}\n"""\n',
        "run = '''\n@=1 'x'\n'''\r\n",
        'x = "\\n@=1"\n',
        "a = {}\nb = []\nc = '${@}'",
    ],
)
def test_names_are_renamed_in_place(text):
    """Bare, quoted and dotted keys, headers, arrays, inline tables, every kind of string."""
    expect_renamed("toml", text.replace("@", OLD), text.replace("@", NEW))


def test_comments_are_left():
    """Wherever they stand."""
    text = f"# {OLD}\na = [ # {OLD}=1\n]\n"
    assert (migrated("toml", text).text, migrated("toml", text).by_hand) == (text, [])


def test_values_change_with_their_names():
    """Each keeps its type."""
    expect_renamed(
        "toml",
        'WAIT_MS = 1500\nDISABLE_IT = true\n[a]\nWAIT_MS = "20"\n',
        'WAIT_S = 1.5\nENABLE_IT = false\n[a]\nWAIT_S = "0.02"\n',
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("@ = 1\nSGLANG_DSA_FUSE_TOPK = 1\n", "to the same text"),
        ("[a]\n@ = 1\nSGLANG_DSA_FUSE_TOPK = 2\n", "a conflict"),
        ("WAIT_MS = [1]\n", "no literal"),
        ("WAIT_MS.x = 1\n", "no literal"),
        ("a = 'about @'\n", "does not understand"),
    ],
)
def test_what_a_tool_cannot_do_is_reported(text, part):
    """The file stays, and a sentence says why."""
    expect_by_hand("toml", text.replace("@", OLD), part)


def test_two_tables_are_no_conflict():
    """Each has its own names."""
    expect_renamed("toml", f"[a]\n{OLD} = 1\n[b]\n{NEW} = 0\n", f"[a]\n{NEW} = 1\n[b]\n{NEW} = 0\n")


@pytest.mark.parametrize(
    "text",
    ["@ = \n", "\n@ = 1\n@ = 2\n", "a = " + "[" * 5000 + "'@'", "x = '@'\ny = " + "9" * 5000, "[a]\n@.b = 1\n[a.@]\n"],
)
def test_a_broken_file_is_refused(text):
    """Also one that has the key twice."""
    with pytest.raises(Unparsable):
        migrated("toml", text.replace("@", OLD))


def test_a_clash_that_only_the_new_name_makes_is_refused():
    """What would not parse afterwards is left untouched."""
    with pytest.raises(Unparsable, match="with the new names it could not be parsed"):
        migrated("toml", f"[a.{OLD}]\nx = 1\n[a.{NEW}]\ny = 1\n")


@given(texts_of("=", '"', "'", "#", "[", "]", "{", "}", ",", ".", '"""', "'''", "1", "a = ", "[a]\n", "\\"))
def test_hostile_text(text):
    """Refused, or the same document."""
    expect_safe("toml", text, lambda it: canonical_leaves(tomllib.loads(it)))
