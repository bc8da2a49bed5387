"""The options with which a command is told what to load: the same for every command that reads settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsa_config import settings

File = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="A config file: TOML, YAML, JSON or pyproject.toml.")
]
Profile = Annotated[str | None, typer.Option("--profile", metavar="NAME", help="The profile of the config file.")]
Dotenv = Annotated[
    list[Path] | None,
    typer.Option("--dotenv", metavar="FILE", help="A dotenv file; of several, the last is strongest."),
]
SecretsDir = Annotated[
    Path | None, typer.Option("--secrets-dir", metavar="DIR", help="A folder with one file for each secret.")
]
Flags = Annotated[
    Path | None, typer.Option("--flags", metavar="FILE", help="A feature-flag file in flagd's format (JSON).")
]


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others are left to the control variables."""
    return {name: value for name, value in options.items() if value is not None and value != []}


def load(**options: Any) -> None:
    """Load what the options name, if any was given.

    Raises:
        SourceError, BadValue, BadValues: a source cannot be used.
    """
    sources = given(**options)
    if sources:
        settings.load(**sources)
