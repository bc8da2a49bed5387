"""The command `dsa`."""

from __future__ import annotations

import errno
import io
import sys
import warnings
from typing import Annotated

import typer

import dsa_config
import dsa_config.cli
from dsa_config import DeprecatedName, SettingError
from dsa_exec.cli.bench import command as bench_command
from dsa_exec.cli.doctor import command as doctor_command
from dsa_exec.cli.plan import command as plan_command
from dsa_exec.cli.run import command as run_command
from dsa_exec.core.errors import DsaError

OUTPUT_ERROR = 1
WRITE_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EBADF)
USAGE_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="dsa",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(dsa_config.cli.app)
app.command()(run_command.run)
app.command()(doctor_command.doctor)
app.command()(plan_command.plan)
app.command()(bench_command.bench)


def main() -> None:
    """Run the command line; exit with 0, 1 (the system refuses), 2 (wrong input) or 130 (interrupted)."""
    # What there is to say about deprecated names, each command says itself, once and without a line of ours.
    warnings.simplefilter("ignore", DeprecatedName)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="backslashreplace"
            )  # a terminal that knows no such character is no reason to stop
    try:
        app(prog_name="dsa")
    except (SettingError, DsaError) as error:
        _say(str(error))
        sys.exit(USAGE_ERROR)
    except OSError as error:
        _say(_told(error))
        sys.exit(OUTPUT_ERROR)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            _say("interrupted")
        raise


def _told(error: OSError) -> str:
    """What the system refused: a write to the output where the error names no file and is one of those a write gets."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    return f"cannot write the output: {reason}" if error.errno in WRITE_ERRORS else reason


def _say(message: str) -> None:
    print(f"dsa: {message}", file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(dsa_config.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """DeepSeek Sparse Attention: run and time a model, plan its memory, and see what every setting is and why."""
