"""`dsa config`: what every setting is, and why."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated

import typer
from rich.table import Table

from dsa_config import DSASettings, Explanation, settings
from dsa_config.declared import settings_of
from dsa_config.moments import NEXT
from dsa_config.tools import source_options as options
from dsa_config.tools.commands.check import check
from dsa_config.tools.commands.diff import diff
from dsa_config.tools.commands.docs import docs
from dsa_config.tools.commands.sample import sample
from dsa_config.tools.commands.schema import schema
from dsa_config.tools.completion import setting_names
from dsa_config.tools.explanations import explain_all
from dsa_config.tools.migrate.command import migrate
from dsa_config.tools.printing import Json, console, print_json

app = typer.Typer(name="config", help="Show, explain and check settings.", no_args_is_help=True)


@app.command()
def show(
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that are not at their default.")] = False,
    file: options.File = None,
    profile: options.Profile = None,
    dotenv: options.Dotenv = None,
    secrets_dir: options.SecretsDir = None,
    flags: options.Flags = None,
    as_json: Json = False,
) -> None:
    """List every setting with its value and where it came from."""
    options.load(file=file, profile=profile, dotenv=dotenv, secrets_dir=secrets_dir, flags=flags)
    explanations = explain_all(changed_only=changed)
    if as_json:
        from dsa_config.tools.snapshots import show_document

        print_json(show_document(changed_only=changed))
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("setting", "value", "from"):
            table.add_column(title, overflow="fold")
        for it in explanations:
            table.add_row(it.name, str(it.value), "default" if it.source == "default" else it.origin)
        out = console()
        out.print(table if explanations else "all settings are at their defaults")
        for path in settings.loaded_files():
            out.print(f"loaded: {path}", soft_wrap=True)
    for it in explanations:
        _print_warnings(it)


@app.command()
def explain(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A setting, or any of its environment names.", autocompletion=setting_names
        ),
    ],
    file: options.File = None,
    profile: options.Profile = None,
    dotenv: options.Dotenv = None,
    secrets_dir: options.SecretsDir = None,
    flags: options.Flags = None,
    as_json: Json = False,
) -> None:
    """Tell why one setting has its value: the layer that won, and those that lost."""
    options.load(file=file, profile=profile, dotenv=dotenv, secrets_dir=secrets_dir, flags=flags)
    it = settings.explain(name)
    if as_json:
        print_json(dataclasses.asdict(it))
    else:
        _print_explanation(it)
    _print_warnings(it)


app.command()(check)
app.command()(diff)
app.command()(docs)
app.command()(migrate)
app.command()(sample)
app.command()(schema)


def _print_explanation(it: Explanation) -> None:
    from dsa_config.tools.readers import NOT_READ, unread

    declared = settings_of(DSASettings)[it.name]
    out = console()
    first, *layers = str(dataclasses.replace(it, warnings=())).splitlines()
    out.print(first, soft_wrap=True)
    out.print(f"  {declared.description}", soft_wrap=True)
    takes = f"takes {declared.allowed}; default {declared.default!r}; a change takes effect at {NEXT[declared.effect]}"
    out.print(f"  {takes}", soft_wrap=True)
    out.print(f"  environment: {', '.join(declared.variables)}", soft_wrap=True)
    if it.name in unread(DSASettings):
        out.print(f"  {NOT_READ}", soft_wrap=True)
    for layer in layers:
        out.print(layer, soft_wrap=True)


def _print_warnings(it: Explanation) -> None:
    for warning in it.warnings:
        print(f"warning: {warning}", file=sys.stderr)
