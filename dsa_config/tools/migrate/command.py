"""`dsa config migrate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def migrate(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, and folders with all in them.")],
    write: Annotated[bool, typer.Option("--write", help="Replace the files; the old ones become NAME.bak.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Rename deprecated environment names in files: print the changes as a diff, or make them with --write.

    Exits with 0 when nothing is left to do, 1 when changes are pending or something needs a hand, 2 when a file could
    not be read, parsed or written.
    """
    from dsa_config import DSASettings
    from dsa_config.tools.migrate import migrate as migration
    from dsa_config.tools.migrate import report
    from dsa_config.tools.migrate.renamings import renamings_of

    reports = migration.migrate(paths, renamings_of(DSASettings), write=write)
    if as_json:
        print(json.dumps(report.document(reports, written=write), indent=2), flush=True)  # noqa: T201
    else:
        sys.stdout.write(report.diff(reports))
        sys.stdout.flush()
        for sentence in report.sentences(reports, written=write):
            print(sentence, file=sys.stderr)  # noqa: T201
    raise typer.Exit(report.exit_code(reports, written=write))
