"""`dsa config`: what every setting is, and why."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dsa_config import BadValue, DSASettings, Explanation, settings
from dsa_config.declare import settings_of
from dsa_config.errors import raise_together

app = typer.Typer(name="config", help="Show and explain settings.", no_args_is_help=True)

MOMENTS = {
    "call": "the next call",
    "capture": "the next CUDA-graph capture or compilation",
    "allocate": "the next allocation of a cache",
    "process": "the next start of the process",
}
"""When a change of a setting takes effect, by its `effect`."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@app.command()
def show(
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that are not at their default.")] = False,
    as_json: Json = False,
) -> None:
    """List every setting with its value and where it came from."""
    explanations = explain_all(changed_only=changed)
    if as_json:
        rows = [{key: getattr(it, key) for key in ("name", "value", "source", "origin")} for it in explanations]
        print_json({"settings": rows})
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("setting", "value", "from"):
            table.add_column(title, overflow="fold")
        for it in explanations:
            table.add_row(it.name, str(it.value), "default" if it.source == "default" else it.origin)
        console().print(table if explanations else "all settings are at their defaults")
    for it in explanations:
        _print_warnings(it)


@app.command()
def explain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A setting, or any of its environment names.")],
    as_json: Json = False,
) -> None:
    """Tell why one setting has its value: the layer that won, and those that lost."""
    it = settings.explain(name)
    if as_json:
        print_json(dataclasses.asdict(it))
    else:
        _print_explanation(it)
    _print_warnings(it)


def explain_all(*, changed_only: bool = False) -> list[Explanation]:
    """An explanation of every setting, in the order of declaration.

    Raises:
        BadValue, BadValues: settings whose values cannot be read, all of them.
    """
    explanations: list[Explanation] = []
    errors: list[BadValue] = []
    for name in settings_of(DSASettings):
        try:
            explanations.append(settings.explain(name))
        except BadValue as error:
            errors.append(error)
    raise_together(errors)
    return [it for it in explanations if it.source != "default"] if changed_only else explanations


def console() -> Console:
    """Standard output without colours of rich's own choosing; lines are not broken where it is no terminal."""
    out = Console(highlight=False, markup=False)
    return out if out.is_terminal else Console(highlight=False, markup=False, width=1000)


def print_json(document: dict[str, Any]) -> None:
    """One JSON object on standard output, and nothing else."""
    print(json.dumps(document, indent=2, default=str), flush=True)


def _print_explanation(it: Explanation) -> None:
    declared = settings_of(DSASettings)[it.name]
    out = console()
    first, *layers = str(dataclasses.replace(it, warnings=())).splitlines()
    out.print(first, soft_wrap=True)
    out.print(f"  {declared.description}", soft_wrap=True)
    takes = (
        f"takes {declared.allowed}; default {declared.default!r}; a change takes effect at {MOMENTS[declared.effect]}"
    )
    out.print(f"  {takes}", soft_wrap=True)
    out.print(f"  environment: {', '.join(declared.variables)}", soft_wrap=True)
    for layer in layers:
        out.print(layer, soft_wrap=True)


def _print_warnings(it: Explanation) -> None:
    for warning in it.warnings:
        print(f"warning: {warning}", file=sys.stderr)
