"""The command `dsa`."""

from __future__ import annotations

import sys
import warnings

import typer

import dsa_config.cli
from dsa_config import DeprecatedName, SettingError
from dsa_exec.cli.run import run
from dsa_exec.core.errors import DsaError

USAGE_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="dsa",
    help="DeepSeek Sparse Attention: run a model, and see what every setting is and why.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(dsa_config.cli.app)
app.command()(run)


def main() -> None:
    """Run the command line; exit with 0, 2 for what the user gave, 130 when interrupted."""
    # What there is to say about deprecated names, each command says itself, once and without a line of ours.
    warnings.simplefilter("ignore", DeprecatedName)
    try:
        app(prog_name="dsa")
    except (SettingError, DsaError) as error:
        print(f"dsa: {error}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            print("dsa: interrupted", file=sys.stderr)
        raise
