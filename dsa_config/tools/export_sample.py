"""Sample files: every setting at its default, commented out.

A line to be uncommented has no blank after its `#`.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Callable

from dsa_config.declare import LiveSettings
from dsa_config.declared import Setting, settings_of
from dsa_config.moments import NEXT
from dsa_config.tools.groups import groups_of, title_of
from dsa_config.tools.readers import NOT_READ, unread

SCHEMA_FILE = "./settings.schema.json"

_PLAIN = re.compile(r"[A-Za-z0-9_./:,+-]+")


def sample_dotenv(cls: type[LiveSettings], *, everything: bool = True) -> str:
    """A dotenv file.

    Args:
        cls: the settings class.
        everything: also settings that no code reads.
    """
    head = [
        f"# {title_of(cls)}, each at its default. Remove the # before a name to set it.",
        "# A variable of the environment is stronger than this file.",
    ]
    return _sample(cls, head, _dotenv_line, everything=everything)


def sample_toml(cls: type[LiveSettings], *, everything: bool = True) -> str:
    """A config file in TOML, which names its schema for editors.

    Args:
        cls: the settings class.
        everything: also settings that no code reads.
    """
    head = [
        f"#:schema {SCHEMA_FILE}",
        f"# {title_of(cls)}, each at its default. Remove the # before a name to set it.",
        f"# The schema lets an editor complete names and values: dsa config schema > {SCHEMA_FILE.removeprefix('./')}",
        f'"$schema" = "{SCHEMA_FILE}"',
        "",
        "# Files to build on; what this file says is stronger.",
        "#include = []",
        "",
        "# Named sets of settings stand at the end, and one is chosen by --profile or by a line here:",
        '# profile = "careful"',
    ]
    tail = ["# [profiles.careful]", "# debug_check_indices = true"] if "debug_check_indices" in settings_of(cls) else []
    return _sample(cls, head, _toml_line, everything=everything, tail=tail)


def _sample(
    cls: type[LiveSettings],
    head: list[str],
    line_of: Callable[[Setting], str | None],
    *,
    everything: bool,
    tail: list[str] | None = None,
) -> str:
    nobody_reads = unread(cls)
    lines = [*head]
    for heading, settings in groups_of(cls):
        shown = [it for it in settings if everything or it.name not in nobody_reads]
        if shown and heading:
            lines += ["", f"# {heading}"]
        for setting in shown:
            lines += ["", *_prose(setting, read=setting.name not in nobody_reads)]
            line = line_of(setting)
            lines.append("# (a value that this kind of file cannot hold)" if line is None else f"#{line}")
    return "\n".join([*lines, *([""] if tail else []), *(tail or [])]) + "\n"


def _prose(setting: Setting, *, read: bool) -> list[str]:
    told = f"Takes {setting.allowed}. A change takes effect at {NEXT[setting.effect]}."
    paragraphs = [setting.description, told, *([] if read else [f"At present {NOT_READ}."])]
    return [f"# {line}" for text in paragraphs for line in textwrap.wrap(text, 116)]


def _dotenv_line(setting: Setting) -> str | None:
    text = _text(setting)
    if text is None or "${" in text:  # which dotenv would expand, in quotes too
        return None
    if not _PLAIN.fullmatch(text):
        text = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"{setting.variable}={text}"


def _toml_line(setting: Setting) -> str | None:
    value, text = setting.default, _text(setting)
    if text is None:
        return None
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return f"{setting.name} = {str(value).lower()}"
    # Anything else as the text that the setting's parser reads: TOML has no null.
    quoted = json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"{setting.name} = {quoted}"


def _text(setting: Setting) -> str | None:
    """The default as text; None where it is a secret, or has no text."""
    try:
        return None if setting.secret else setting.text_of(setting.default)
    except TypeError:
        return None
