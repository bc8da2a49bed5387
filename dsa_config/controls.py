"""The environment variables that steer the settings themselves: which files to load, and how strict to be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsa_config.errors import Rejected, SourceError
from dsa_config.grammar import BOOLEAN_WORDS, read_boolean

if TYPE_CHECKING:
    from dsa_config.declare import LiveSettings

SUFFIXES = {
    "CONFIG": "The config file: TOML, YAML, JSON, or a pyproject.toml with a table for it.",
    "PROFILE": "The profile of the config file to use.",
    "DOTENV": "A dotenv file.",
    "SECRETS_DIR": "A folder with one file for each secret, named like the environment variable.",
    "FLAGS": "A feature-flag file in flagd's format.",
    "EMULATE_VERSION": "Treat deprecated names as this version of the project does.",
    "FATAL_DEPRECATIONS": f"The use of a deprecated name is an error: {BOOLEAN_WORDS}.",
    "FATAL_CONFLICTS": f"Two names of a setting with different text are an error: {BOOLEAN_WORDS}.",
}
"""What each variable gives, by what follows the class's prefix in its name. All are read by `load` and `reload`."""

SWITCHES = ("FATAL_DEPRECATIONS", "FATAL_CONFLICTS")
"""Those that are on or off."""


@dataclass(frozen=True, slots=True)
class Controls:
    """What the control variables say. None: not set."""

    config: str | None
    profile: str | None
    dotenv: str | None
    secrets_dir: str | None
    flags: str | None
    emulate_version: str | None
    fatal_deprecations: bool
    fatal_conflicts: bool


def control_variables(cls: type[LiveSettings]) -> dict[str, str]:
    """The names of a class's control variables, each with what it gives."""
    prefix = cls.model_config.get("env_prefix", "")
    return {f"{prefix}{suffix}": words for suffix, words in SUFFIXES.items()} if prefix else {}


def controls_of(cls: type[LiveSettings]) -> Controls:
    """What the environment says of a class's control variables, as of now.

    Raises:
        SourceError: a text that a variable does not take.
    """
    controls, errors = sound_controls_of(cls)
    if errors:
        raise errors[0]
    return controls


def sound_controls_of(cls: type[LiveSettings]) -> tuple[Controls, list[SourceError]]:
    """The same where a text may be bad: it counts as not set, and its error is told."""
    found: dict[str, Any] = {}
    errors: list[SourceError] = []
    for suffix, variable in zip(SUFFIXES, control_variables(cls), strict=False):
        try:
            found[suffix] = _switch(variable) if suffix in SWITCHES else _text(variable)
        except SourceError as error:
            errors.append(error)
    controls = Controls(
        config=found.get("CONFIG"),
        profile=found.get("PROFILE"),
        dotenv=found.get("DOTENV"),
        secrets_dir=found.get("SECRETS_DIR"),
        flags=found.get("FLAGS"),
        emulate_version=found.get("EMULATE_VERSION"),
        fatal_deprecations=found.get("FATAL_DEPRECATIONS", False),
        fatal_conflicts=found.get("FATAL_CONFLICTS", False),
    )
    return controls, errors


def _text(variable: str) -> str | None:
    text = os.environ.get(variable)
    if text is not None and not text.strip():
        raise SourceError(f"environment variable {variable}", ["is empty; unset it, or give it a value"])
    return None if text is None else text.strip()


def _switch(variable: str) -> bool:
    text = _text(variable)
    try:
        return text is not None and bool(read_boolean(text))
    except Rejected:
        reason = f"{text!r} is not a boolean; wanted {BOOLEAN_WORDS}"
        raise SourceError(f"environment variable {variable}", [reason]) from None
