"""`dsa config sample`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dsa_config.tools.printing import print_text


class Format(StrEnum):
    """What a sample can be."""

    env = "env"
    toml = "toml"


def sample(
    format: Annotated[Format, typer.Option("--format", help="A dotenv file or a config file.")] = Format.env,
    everything: Annotated[
        bool, typer.Option("--all", help="Also settings that no code of this version reads.")
    ] = False,
) -> None:
    """Print a file to start from: every setting at its default, commented out, with what it is for."""
    from dsa_config import DSASettings
    from dsa_config.tools.export_sample import sample_dotenv, sample_toml

    write = sample_toml if format is Format.toml else sample_dotenv
    print_text(write(DSASettings, everything=everything))
