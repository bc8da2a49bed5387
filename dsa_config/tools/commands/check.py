"""`dsa config check`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

import typer

from dsa_config.tools import source_options as options
from dsa_config.tools.findings import Finding
from dsa_config.tools.printing import Json, console, print_json


def check(
    file: options.File = None,
    profile: options.Profile = None,
    dotenv: options.Dotenv = None,
    secrets_dir: options.SecretsDir = None,
    flags: options.Flags = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="V", help="Treat deprecated names as this version does.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find what is wrong with the environment and with every source of settings.

    Exits with 0 when nothing is, 1 when there are warnings only, 2 when there are errors.
    """
    from dsa_config import DSASettings
    from dsa_config.tools.check import check_all
    from dsa_config.tools.findings import exit_code

    sources = options.given(
        file=file, profile=profile, dotenv=dotenv, secrets_dir=secrets_dir, flags=flags, emulate_version=version
    )
    findings, gathered = check_all(DSASettings, **sources)
    if as_json:
        print_json(
            {
                **_counts(findings),
                "files": [str(path) for path in gathered.files],
                "findings": [dataclasses.asdict(it) for it in findings],
            }
        )
    else:
        out = console()
        for finding in findings:
            out.print(str(finding), soft_wrap=True)
        out.print(_summary(findings, len(gathered.files)), soft_wrap=True)
    raise typer.Exit(exit_code(findings))


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    severities = [finding.severity for finding in findings]
    return {"errors": severities.count("error"), "warnings": severities.count("warning")}


def _summary(findings: Sequence[Finding], files: int) -> str:
    looked = f"the environment and {_number(files, 'file')}"
    if not findings:
        return f"nothing is wrong with {looked}"
    told = ", ".join(_number(count, kind.removesuffix("s")) for kind, count in _counts(findings).items() if count)
    return f"{told} in {looked}"


def _number(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
