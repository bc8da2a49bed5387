"""The reference page: what layers there are, how a value is given in each, and every setting with all its facts."""

from __future__ import annotations

from typing import Any, get_args

from dsa_config.controls import control_variables
from dsa_config.declare import LiveSettings
from dsa_config.declared import Setting
from dsa_config.layers import Source
from dsa_config.moments import NEXT
from dsa_config.renames import Deprecated
from dsa_config.tools.groups import groups_of, title_of
from dsa_config.tools.readers import NOT_READ, unread

LAYERS: dict[Source, tuple[str, str]] = {
    "default": ("the default", "what the table of the setting says below"),
    "flag": ("a feature flag", "a flag named like the setting, in the file that `{prefix}FLAGS` names"),
    "file": (
        "the config file",
        "`{name} = {literal}` in the TOML file that `{prefix}CONFIG` names (YAML and JSON as well)",
    ),
    "cloud": ("a cloud store", "in the program: `settings.load(cloud=[...])`, with a source of pydantic-settings"),
    "secrets": ("a secrets folder", "a file `{variable}` in the folder that `{prefix}SECRETS_DIR` names"),
    "dotenv": ("a dotenv file", "`{variable}={text}` in the file that `{prefix}DOTENV` names"),
    "environment": ("the environment", "`export {variable}={text}`"),
    "set": ("this process", 'in the program: `settings.set({name}={value!r})`, until `settings.reset("{name}")`'),
    "override": (
        "this scope",
        "in the program: `with settings.override({name}={value!r}): ...`, for this thread or asyncio task",
    ),
}
"""The layers, weakest first: what each is, and how a value is given there."""


def settings_page(cls: type[LiveSettings]) -> str:
    """The reference of a settings class in Markdown."""
    nobody_reads = unread(cls)
    groups = groups_of(cls)
    lines = [f"# {title_of(cls)}", "", *_introduction(groups[0][1][0], cls)]
    for heading, settings in groups:
        lines += [f"## {heading or 'Settings'}", ""]
        for setting in settings:
            lines += _about(setting, read=setting.name not in nobody_reads)
    return "\n".join([*lines, *_controls(cls)]).rstrip("\n") + "\n"


def _introduction(example: Setting, cls: type[LiveSettings]) -> list[str]:
    value = _another_value(example)
    words = {
        "name": example.name,
        "variable": example.variable,
        "value": value,
        "text": _example(example),
        "literal": str(value).lower(),
        "prefix": cls.model_config.get("env_prefix", ""),
    }
    rows = [f"| {rank} | {title} | {how.format(**words)} |" for rank, (title, how) in enumerate(LAYERS.values(), 1)]
    name = example.name
    return [
        "This page is generated from the declarations (`dsa config docs`); do not edit it.",
        "",
        f"A setting has a name for programs and files (`{name}`) and an environment name (`{example.variable}`).",
        "A value can be given in any of these layers. Where several give one, **the one further down the table wins**.",
        "",
        "| | layer | how to give a value there |",
        "|---|---|---|",
        *rows,
        "",
        f"Programs read a setting where they use it: `from dsa_config import settings`, then `settings.{name}`. They",
        "see a change at once; whether it still has an effect is said under *takes effect* for each setting.",
        "",
        f"`dsa config explain {name}` tells which layer gives the value now, and which others were passed over.",
        "`dsa config check` looks for mistakes in all of them. `dsa config sample` prints a file to start from.",
        "",
    ]


def _about(setting: Setting, *, read: bool) -> list[str]:
    old = [f"`{name}` ({_stages(entry)})" for entry in setting.deprecated for name in entry.names]
    default = setting.masked(setting.default)
    rows = [
        ("takes", _cell(setting.allowed)),
        ("default", f"`{_cell(default)}`"),
        ("environment", f"`{setting.variable}`"),
        *([("deprecated names", ", ".join(old))] if old else []),
        ("takes effect", f"at {NEXT[setting.effect]}"),
        ("across ranks", f"may differ: {setting.may_differ}" if setting.may_differ else "must agree"),
        ("since", setting.introduced or "the first version"),
        ("example", f"`{setting.variable}={_cell(_example(setting))}`"),
    ]
    unread_note = (
        []
        if read
        else [f"**{NOT_READ[0].upper()}{NOT_READ[1:]}.** It is declared for engines that have such a path.", ""]
    )
    return [
        f"### {setting.name}",
        "",
        setting.description,
        "",
        *unread_note,
        "| | |",
        "|---|---|",
        *(f"| {title} | {told} |" for title, told in rows),
        "",
    ]


def _example(setting: Setting) -> str:
    try:
        return "..." if setting.secret else setting.text_of(_another_value(setting))
    except TypeError:  # a value without a text
        return "..."


def _another_value(setting: Setting) -> Any:
    """A value other than the default, where one can be told; else the default."""
    return not setting.default if isinstance(setting.default, bool) else setting.default


def _stages(entry: Deprecated) -> str:
    refused = f", refused from {entry.error_in}" if entry.error_in is not None else ""
    return f"since {entry.since}{refused}, removed in {entry.remove_in}"


def _cell(text: object) -> str:
    """Text within a table of Markdown."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _controls(cls: type[LiveSettings]) -> list[str]:
    variables = control_variables(cls)
    if not variables:
        return []
    return [
        "## Control variables",
        "",
        "These say what is loaded, and how strict to be. They are read before the first value, and by",
        "`settings.reload()`.",
        "",
        "| variable | what it gives |",
        "|---|---|",
        *(f"| `{name}` | {_cell(words)} |" for name, words in variables.items()),
    ]


assert set(LAYERS) == set(get_args(Source)), "every layer is described"
