"""The command `dsa doctor`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from dsa_config.tools.printing import Json, print_json
from dsa_exec.cli.device_option import AUTO, Device, usable_device
from dsa_exec.core.errors import DsaError

if TYPE_CHECKING:
    from dsa_exec.cli.doctor.report import DoctorReport

STDOUT, STDERR = 1, 2


def doctor(
    device: Device = AUTO,
    assume: Annotated[
        str | None,
        typer.Option(
            metavar="ARCH",
            help="Work out the choices for other hardware, such as sm90, sm100, gfx942 or cpu, "
            "with the libraries of this machine.",
        ),
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Attention heads of the typical calls.", show_default="16, then 128"),
    ] = None,
    index_heads: Annotated[int, typer.Option(min=1, max=1024, help="Index heads of the typical calls.")] = 64,
    next_n: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Rows a request in decode: with drafts, more.", show_default="1, then 2"),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=2**16, help="Requests in decode.")] = 64,
    rows: Annotated[int, typer.Option(min=1, max=2**20, help="Query rows in prefill.")] = 4096,
    context: Annotated[int, typer.Option(min=1, max=2**24, help="Tokens of a request.")] = 32768,
    as_json: Json = False,
) -> None:
    """Tell what this machine has, what would run each op and why, and what is wrong.

    Looks at the device, vendor libraries, settings, the backend of every op with what would change it, the way that
    attention goes, the pages of new caches, and the environment that libraries written in C see. Runs no kernel and
    loads no model.

    Exits with 0 when nothing is wrong, 1 when there are warnings only, 2 when there are errors: settings that cannot
    be read as they were meant, or calls that would fail (with --assume, on the assumed hardware).
    """
    with _output_kept():
        _require_torch()
        from dsa_exec.cli.doctor.examination import examine
        from dsa_exec.cli.doctor.machine import assumed_capabilities
        from dsa_exec.cli.doctor.typical_calls import Sizes

        usual = Sizes()
        report = examine(
            None if device == AUTO else usable_device(device),
            assume=None if assume is None else assumed_capabilities(assume),
            sizes=Sizes(
                heads=usual.heads if heads is None else (heads,),
                index_heads=index_heads,
                next_n=usual.next_n if next_n is None else (next_n,),
                batch=batch,
                rows=rows,
                context=context,
            ),
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        from dsa_exec.cli.doctor.show import show

        show(report)
    raise typer.Exit(exit_code(report))


class NoTorch(DsaError):
    """torch cannot be imported, so that there is nothing to say of what it would run."""


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except Exception as error:  # of code that is not ours: whatever its import raises
        raise NoTorch(f"torch cannot be imported: {type(error).__name__}: {error}") from None


def exit_code(report: DoctorReport) -> int:
    """0: nothing is wrong; 1: warnings only; 2: errors."""
    return 2 if report.errors else 1 if report.warnings else 0


@contextlib.contextmanager
def _output_kept() -> Iterator[None]:
    """What libraries print while they are imported goes to standard error: our output is for programs, too."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        if sys.__stdout__ is not None and sys.__stderr__ is not None:  # else their numbers are closed, or of a file
            kept = os.dup(STDOUT)
            stack.callback(os.close, kept)
            os.dup2(STDERR, STDOUT)
            stack.callback(os.dup2, kept, STDOUT)
        yield
