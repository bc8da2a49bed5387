"""Everything that is wrong with the environment and the loaded sources, found in one pass that never raises."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

from pydantic import ValidationError

from dsa_config import lifecycle
from dsa_config.controls import sound_controls_of
from dsa_config.declare import LiveSettings
from dsa_config.declared import settings_of
from dsa_config.errors import BadValue, SourceError, shown
from dsa_config.live import Live, live
from dsa_config.loading import Sources
from dsa_config.names import Word, conflict_of
from dsa_config.policy import Policy, policy_of
from dsa_config.state import State
from dsa_config.tools.findings import Finding, Kind
from dsa_config.tools.gather import Gathered, gather
from dsa_config.tools.neighbours import Neighbourhood
from dsa_config.tools.readers import NOT_READ, unread


def check(cls: type[LiveSettings], **sources: Any) -> tuple[Finding, ...]:
    """Everything that is wrong with a class's settings as the process would read them now, errors first.

    Nothing is loaded, no warning is given, and one problem hides no other.

    Args:
        cls: the settings class.
        **sources: what `live(cls).load` takes; what is left out is as it was loaded, or named by control variables.

    Raises:
        TypeError: an argument that `load` does not take.
    """
    return check_all(cls, **sources)[0]


def check_all(cls: type[LiveSettings], **sources: Any) -> tuple[tuple[Finding, ...], Gathered]:
    """The same, together with what was read."""
    state = cast(Live, live(cls))._state
    controls, errors = sound_controls_of(cls)
    settled = replace(state.sources or Sources(), **sources).settled(controls)
    try:
        policy = _policy(cls, settled.emulate_version, settled)
    except SourceError as no_version:
        errors.append(no_version)
        policy = _policy(cls, None, settled)
    gathered = gather(cls, settled)
    for error in errors:
        gathered.refuse(error)
    said: dict[str, list[Word]] = {}
    findings = list(gathered.findings)
    for words in gathered.words:
        for name, it in words.items():
            findings += _about_words(it, policy)
            said.setdefault(name, []).extend(lifecycle.in_force(it, policy))
    findings += _about_names(cls, gathered)
    findings += _about_flags(state, gathered)
    findings += _about_unread(cls, said, gathered)
    if not any(it.severity == "error" for it in findings):
        findings += _about_combination(cls, said)
    return tuple(sorted(findings, key=lambda it: it.severity)), gathered  # "error" < "warning"


def _policy(cls: type[LiveSettings], version: str | None, settled: Sources) -> Policy:
    return policy_of(
        cls, version, fatal_deprecations=settled.fatal_deprecations, fatal_conflicts=settled.fatal_conflicts
    )


def _about_words(words: Sequence[Word], policy: Policy) -> Iterator[Finding]:
    """What is wrong with one source's words on one setting."""
    setting = words[0].setting
    for word in lifecycle.in_force(words, policy):
        try:
            word.parse()
        except BadValue as error:
            yield _bad_value(word, error.reason)
        except Exception as error:  # a validator of the class may raise anything
            told = "is refused by its type" if setting.secret else f"its validator raised {_told(error)}"
            yield _bad_value(word, told)
            return  # names are compared by their values, and there are none
    for word in words:
        for message in lifecycle.warnings_about([word], policy):
            yield _about_name(word, message, policy)
    if conflict := conflict_of(lifecycle.in_force(words, policy)):
        texts = ", ".join(f"{name}={shown(setting.masked(text))}" for name, text in conflict.items())
        yield Finding(
            "error",
            "conflict",
            " ".join(conflict),
            setting.name,
            "; ".join(str(word.origin) for word in lifecycle.in_force(words, policy)),
            f"{setting.name} is set under several names to different text ({texts})",
            f"keep {next(iter(conflict))} alone",
        )


def _bad_value(word: Word, reason: str) -> Finding:
    setting, names = word.setting, " ".join(word.found)
    message = f"{names}={shown(setting.masked(word.given))}: {reason}"
    return Finding("error", "bad-value", names, setting.name, str(word.origin), message, f"it takes {setting.allowed}")


def _about_name(word: Word, message: str, policy: Policy) -> Finding:
    names, setting, origin = " ".join(word.found), word.setting, str(word.origin)
    phase = policy.phase(word)
    if phase == "current" or not policy.has(setting):
        return Finding("warning", "without-effect", names, setting.name, origin, message)
    # Files use the field's name; the replacement is worded for variables, with the text where the meaning changed.
    in_file = word.origin.variable is None
    suggestion = f"use {setting.name}" if in_file else f"use {lifecycle.replacement(word)}"
    if phase == "deprecated" and not policy.fatal_deprecations:
        return Finding("warning", "deprecated-name", names, setting.name, origin, message, suggestion)
    kind: Kind = "deprecated-name" if phase == "deprecated" else "removed-name"
    return Finding("error", kind, names, setting.name, origin, message, suggestion)


def _about_names(cls: type[LiveSettings], gathered: Gathered) -> Iterator[Finding]:
    """Names of variables that no setting has: removed ones, and slips."""
    variables = {name: f"environment variable {_printable(name)}" for name in sorted(os.environ)}
    present: dict[str, object] = {**gathered.mentioned, **variables}
    for tombstone in cls.removed_names:
        if tombstone.name in present:
            suggestion = f"instead: {tombstone.instead}"
            origin = str(present[tombstone.name])
            yield Finding("error", "removed-name", tombstone.name, None, origin, str(tombstone), suggestion)
    neighbourhood = Neighbourhood(cls)
    fields = {setting.variable: setting.name for setting in settings_of(cls).values()}
    for name, place in present.items():
        near = neighbourhood.near(name)
        if near is not None:
            message = f"{_printable(name)} is no name of a setting, and has no effect"
            suggestion = f"did you mean {near}?"
            about = fields.get(near)
            yield Finding("warning", "unknown-name", _printable(name), about, str(place), message, suggestion)


def _about_flags(state: State, gathered: Gathered) -> Iterator[Finding]:
    """Flags that cannot be evaluated in the process's own context."""
    flags = gathered.flags
    if flags is None:
        return
    for name in flags.names:
        try:
            flags.evaluate(name, state.process_context())
        except Exception as error:  # what a server's client raises
            reason = error.reason if isinstance(error, BadValue) else _told(error)
            origin = error.origin if isinstance(error, BadValue) else f"feature flag {name}"
            yield Finding("error", "bad-value", name, name, origin, f"the flag of {name}: {reason}")


def _about_unread(cls: type[LiveSettings], said: dict[str, list[Word]], gathered: Gathered) -> Iterator[Finding]:
    """Settings without an effect: told to whoever sets one, and, while nobody does, to whoever declares it."""
    flagged = set(gathered.flags.names) if gathered.flags is not None else set()
    for name in sorted(unread(cls)):
        if words := said.get(name):
            names, origin, state = " ".join(words[0].found), str(words[0].origin), "set"
        elif name in flagged:
            names, origin, state = name, f"feature flag {name}", "set"
        else:
            names, origin, state = name, f"the declaration of {cls.__name__}", "declared"
        yield Finding("warning", "unread-setting", names, name, origin, f"{names} is {state}, and {NOT_READ}")


def _about_combination(cls: type[LiveSettings], said: dict[str, list[Word]]) -> Iterator[Finding]:
    """What the class's validators of the whole model say to values that are good one by one."""
    given = {name: it.given_default for name, it in settings_of(cls).items()}
    given |= {name: words[0].today() for name, words in said.items() if words}
    try:
        cls(**given)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            yield _combination(cls, detail["msg"])
    except Exception as error:  # a validator may raise anything
        yield _combination(cls, _told(error))


def _combination(cls: type[LiveSettings], reason: str) -> Finding:
    message = f"the values do not go together: {reason}"
    return Finding("error", "combination", cls.__name__, None, f"the rules of {cls.__name__}", message)


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
