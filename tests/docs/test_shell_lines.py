"""The commands that README and docs show are ones that `dsa` takes, with variables that are settings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

import dsa_exec
from dsa_config import DSASettings
from dsa_config.controls import control_variables
from dsa_config.declared import settings_of
from dsa_exec.cli import app

ROOT = Path(dsa_exec.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
LINE = re.compile(r"^(?:\$ )?((?:[A-Z_]+=\S+ )*)dsa (.*)$", re.M)
EXAMPLES = {"PATH...": "serve", "NAME": "fuse_topk", "COMMAND": "show"}


def lines_of(page: Path) -> list[tuple[str, str]]:
    """Of each line that runs `dsa`, in blocks of either kind: the variables, and the words after it."""
    text = page.read_text("utf-8")
    blocks = [block for language, block in FENCED.findall(text) if language == ""]
    indented = [line.strip() for line in FENCED.sub("", text).splitlines() if line.startswith("    ")]
    return LINE.findall("\n".join([*blocks, *indented]))


SHOWN = [
    pytest.param(variables.split(), command, id=f"{page.name}-{number}")
    for page in PAGES
    for number, (variables, command) in enumerate(lines_of(page))
]


def words_of(command: str) -> list[str]:
    """What a command is given: without comments, and without where its output goes."""
    words = shlex.split(command, comments=True)
    ends = [number for number, word in enumerate(words) if word in (">", "|", "&&")]
    return [EXAMPLES.get(word, word) for word in words[: min(ends, default=len(words))]]


@pytest.mark.parametrize(("variables", "command"), SHOWN)
def test_the_command_is_taken(variables, command):
    """Its name, its options and their values, and the variables before it."""
    known = {name for setting in settings_of(DSASettings).values() for name in setting.variables}
    known |= set(control_variables(DSASettings))
    assert {variable.split("=")[0] for variable in variables} <= known
    words, kind = words_of(command), typer.main.get_command(app)
    while commands := getattr(kind, "commands", None):
        if words[0].startswith("-"):
            break
        assert words[0] in commands, command
        kind, words = commands[words[0]], words[1:]
    assert "--help" in words or kind.make_context("dsa", words) is not None


def test_there_are_commands():
    """Pages whose blocks are written otherwise do not leave this file without a test."""
    assert len(SHOWN) > 15
