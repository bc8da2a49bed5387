"""How commands print: tables and sentences for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def console(*, stderr: bool = False) -> Console:
    """Standard output without colours of rich's own choosing; lines are not broken where it is no terminal.

    Args:
        stderr: standard error in its place.
    """
    out = Console(highlight=False, markup=False, stderr=stderr)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=1000, stderr=stderr)


def print_json(document: dict[str, Any]) -> None:
    """One JSON object on standard output, and nothing else."""
    print_text(json.dumps(document, indent=2, default=str))


def print_text(text: str) -> None:
    """Text on standard output as it is; nothing where that is closed."""
    if sys.stdout is not None:
        sys.stdout.write(text.rstrip("\n") + "\n")
        sys.stdout.flush()
