"""Python call sites."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from migrations import NEW, OLD, canonical, expect_by_hand, expect_renamed, expect_safe, migrated, texts_of

from dsa_config.tools.migrate.errors import Unparsable

PLACES = [
    'import os\nos.environ["@"] = "0"  # why\nos.environ[\'@\']\nos.getenv("@", "é")\n',
    'def test(monkeypatch):\n\tmonkeypatch.setenv(\'@\', \'0\')\n\tmonkeypatch.delenv("""@""")\n',
    'monkeypatch.setitem(os.environ, "@", "1"); os.environ.setdefault("@", "1"); setenv("@")\n',
    "os.environb[b'@']\nif \"@\" in os.environ: del os.environ['@']\n",
    'NAMES = ["@", ("@",)]\nx = {"@": "0", **y}\n',
    "envs.@.get()\nwith envs.@.override(False): pass\ngetattr(envs, '@')\n",
    'dict(@="0", b=1)\nrun(\n    @=x,  # c\n)\n',
    "def f(x=os.environ['@']):\r\n    return x\r\n",
    'os.environ["@"] += "x"\nos.environ["@"]: str\ncall(a)("@", 1)\n(lambda: 0)("@", "1")\n',
]


@pytest.mark.parametrize("text", PLACES)
def test_names_are_renamed_in_place(text):
    """Strings that are the name, attributes, keyword arguments and dictionary keys."""
    expect_renamed("python", text.replace("@", OLD), text.replace("@", NEW))


def test_comments_and_docstrings_are_left():
    """They may speak of history."""
    text = f'"""About {OLD}."""\nx = 1  # {OLD}\n"{OLD}"\n'
    assert (migrated("python", text).text, migrated("python", text).by_hand) == (text, [])


def test_values_change_with_their_names():
    """Where the value is a literal text."""
    expect_renamed(
        "python",
        "m.setenv('WAIT_MS', '1500')\nos.environ['DISABLE_IT'] = '1'\nx = {'WAIT_MS': '20'}\ndict(DISABLE_IT='0')\n",
        "m.setenv('WAIT_S', '1.5')\nos.environ['ENABLE_IT'] = '0'\nx = {'WAIT_S': '0.02'}\ndict(ENABLE_IT='1')\n",
    )


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("os.getenv('WAIT_MS')", "no literal"),
        ("m.setenv('WAIT_MS', str(x))", "no literal"),
        ("m.setenv('WAIT_MS', '1\\x30')", "no literal"),
        ("m.setenv('WAIT_MS', '')", "cannot be converted"),
        ("os.environ['A'] = os.environ['WAIT_MS']", "no literal"),
        ("x = {'@': '1', 'SGLANG_DSA_FUSE_TOPK': '1'}", "to the same text"),
        ("f(@=1, SGLANG_DSA_FUSE_TOPK=0)", "decide which one holds"),
        ("def t(m):\n  m.setenv('@', '1')\n  m.setenv('SGLANG_DSA_FUSE_TOPK', '0')", "a conflict"),
        ("x = {'@': 'SGLANG_DSA_FUSE_TOPK'}", "the new name stands in the same statement"),
        ("x = getenv('SGLANG_DSA_FUSE_TOPK') or getenv('@')", "the new name stands in the same statement"),
        ("def t(x=['@', 'SGLANG_DSA_FUSE_TOPK']): ...", "the new name stands in the same statement"),
        ("m.setenv('SGLANG_DSA_FUSE_TOPK', getenv('@'))", "is read beside it"),
        ("x = '@' + suffix", "does not understand"),
        ("x = '@' '_EXTRA'", "does not understand"),
        ("x = '@'.lower()", "does not understand"),
        ("x = f'@{suffix}'", "does not understand"),
        ("run('env @=0 serve')", "does not understand"),
        ("@ = os.getenv('A')", "of this Python file's own"),
        ("class Envs:\n  @ = 1\nEnvs.@.get()\n", "of this Python file's own"),
        ("from engine.envs import @", "of this Python file's own"),
    ],
)
def test_what_a_tool_cannot_do_is_reported(text, part):
    """Composed strings, expressions, conflicts, and names that the file gives to something of its own."""
    expect_by_hand("python", text.replace("@", OLD), part)


def test_two_functions_are_no_conflict():
    """Two tests may each set one of the names."""
    text = "def a(m):\n  m.setenv('@', '1')\ndef b(m):\n  m.setenv('SGLANG_DSA_FUSE_TOPK', '0')\n"
    expect_renamed("python", text.replace("@", OLD), text.replace("@", NEW))


@pytest.mark.parametrize(
    "text",
    [
        "x = (\n'@'",
        "print '@'",
        "'@'\0",
        "(" * 3000 + "'@'",
        "x = '@'; y = " + "9" * 5000,
        "x = '@'\n" + "-" * 20000 + "1",
    ],
)
def test_a_broken_file_is_refused(text):
    """Also Python 2, null characters, and what is nested too deeply."""
    with pytest.raises(Unparsable):
        migrated("python", text.replace("@", OLD))


def meaning(text: str) -> str:
    return canonical(ast.dump(ast.parse(text)))


@given(
    texts_of(
        "'", '"', "=", "(", ")", "[", "]", "{", "}", ":", "#", "f'", "b'", "os.environ[", ".", "\n  ", "+", "\\", ", "
    )
)
def test_hostile_text(text):
    """Refused, or the same program with other names."""
    expect_safe("python", text, meaning)
