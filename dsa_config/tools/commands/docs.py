"""`dsa config docs`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from dsa_config.tools.printing import print_text


class Format(StrEnum):
    """What the reference can be printed as."""

    markdown = "markdown"


def docs(
    format: Annotated[Format, typer.Option("--format", help="How to write it.")] = Format.markdown,  # noqa: ARG001
) -> None:
    """Print the reference of all settings: what each is for, takes, and how it is set."""
    from dsa_config import DSASettings
    from dsa_config.tools.export_docs import settings_page

    print_text(settings_page(DSASettings))
