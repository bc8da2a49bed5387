"""`dsa config diff`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from dsa_config.tools.printing import Json, console, print_json

_WHAT = "Output of `show --json`, a config file, a dotenv file, or - for this process."


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=_WHAT)],
    b: Annotated[str, typer.Argument(metavar="B", help=_WHAT)],
    as_json: Json = False,
) -> None:
    """Compare the values of two snapshots, setting by setting.

    Exits with 0 when they are equal, 1 when they differ, 2 when one of them cannot be read.
    """
    from dsa_config.tools.snapshots import compare, snapshot_of

    left, right = snapshot_of(a), snapshot_of(b)
    found = compare(left, right)
    if as_json:
        print_json(found.document())
    else:
        out = console()
        if found.differences:
            table = Table(box=None, pad_edge=False)
            for title in ("setting", left.label, right.label):
                table.add_column(title, overflow="fold")
            for it in found.differences:
                table.add_row(it.name, it.left, it.right)
            out.print(table)
        else:
            out.print(f"{left.label} and {right.label} have the same values", soft_wrap=True)
        for note in found.notes:
            out.print(f"note: {note}", soft_wrap=True)
    raise typer.Exit(1 if found.differences else 0)
