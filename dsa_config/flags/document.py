"""A flag file as it is read: checked whole, with every mistake in it told at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeGuard

from dsa_config.declare import LiveSettings
from dsa_config.declared import Setting, settings_of
from dsa_config.errors import Rejected, nearest, shown
from dsa_config.flags.errors import FlagFileError, reason_of
from dsa_config.flags.positions import Place, Positions, positions_in
from dsa_config.flags.schema import FLAG_KEYS, STATES, TOP_KEYS, is_flaggable, json_types, type_in_json
from dsa_config.flags.targeting import RuleCheck, is_timed, outcomes

IN_WORDS = {
    "null": "null",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "array": "a list",
    "object": "an object",
}
"""JSON types as they are told to people."""


@dataclass(frozen=True, slots=True)
class FlagRule:
    """One flag of a file, known to be right."""

    name: str
    state: str
    variants: dict[str, tuple[Any, Any]]
    """Each variant's value as it was given, and as the setting's parser understood it."""
    default: str | None
    targeting: dict[str, Any]
    is_timed: bool
    line: int | None


def read_flag_file(path: Path, cls: type[LiveSettings]) -> dict[str, FlagRule]:
    """All flags of a file, by name.

    Raises:
        FlagFileError: the file cannot be read, or anything in it is wrong.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FlagFileError(str(path), [f"it is not UTF-8 text (byte {error.start})"]) from None
    except (OSError, ValueError) as error:
        raise FlagFileError(str(path), [f"it cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}: column {error.colno}"
        raise FlagFileError(str(path), [f"{place}: it is not JSON: {error.msg}"]) from None
    except (ValueError, RecursionError) as error:
        raise FlagFileError(str(path), [f"it is not JSON: {error}"]) from None
    reading = _Reading(path, positions_in(text), cls)
    flags = reading.flags(document)
    if reading.errors:
        raise FlagFileError(str(path), reading.errors)
    return flags


def variant_named(outcome: object) -> str:
    """The variant that a rule's outcome stands for, by flagd's rule: true and false are names too."""
    return str(outcome).lower() if isinstance(outcome, bool) else str(outcome)


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is no number in JSON")


class _Reading:
    """One pass over one document, in which errors gather."""

    def __init__(self, path: Path, positions: Positions, cls: type[LiveSettings]) -> None:
        self._errors: list[tuple[int, str]] = []
        self._path = path
        self._positions = positions
        self._cls = cls
        self._settings = settings_of(cls)
        self._types = json_types(cls)

    @property
    def errors(self) -> list[str]:
        """What is wrong, in the order of the file."""
        return [problem for _, problem in sorted(self._errors, key=itemgetter(0))]

    def flags(self, document: object) -> dict[str, FlagRule]:
        for repeated, line in self._positions.repeated:
            self._say(repeated, f"{_shown_place(repeated)} stands here again: a key may stand once in an object", line)
        if not self._is_object(document, (), "the file"):
            return {}
        self._require_known(document, (), TOP_KEYS, "a key of a flag file")
        self._check_metadata(document, ())
        if not isinstance(document.get("$schema", ""), str):
            self._say(("$schema",), f"{shown(document['$schema'])} is not the address of a schema")
        evaluators = document.get("$evaluators", {})
        rules = RuleCheck(evaluators if self._is_object(evaluators, ("$evaluators",), "$evaluators") else {})
        for name, rule in rules.evaluators.items():
            place: Place = ("$evaluators", name)
            if self._is_object(rule, place, f"$evaluators: {name!r}"):
                rules.whole(rule, place)
        if "flags" not in document:
            self._say((), "it has no flags; wanted an object with the key 'flags'")
        flags = document.get("flags", {})
        made: dict[str, FlagRule] = {}
        for name, given in flags.items() if self._is_object(flags, ("flags",), "flags") else ():
            setting = self._settings.get(name)
            if setting is None or not is_flaggable(setting):
                self._say(("flags", name), self._why_no_flag(name))
            elif self._is_object(given, ("flags", name), f"flag {name}"):
                made[name] = self._flag(setting, given, rules)
        for place, problem in rules.problems:
            self._say(place, f"{_owner(place)}: {problem}")
        return made

    def _flag(self, setting: Setting, given: dict[str, Any], rules: RuleCheck) -> FlagRule:
        place: Place = ("flags", setting.name)
        what = f"flag {setting.name}"
        self._require_known(given, place, FLAG_KEYS, f"a key of {what}")
        self._check_metadata(given, place)
        state = given.get("state")
        if state not in STATES:
            problem = f"state {shown(state)} is not" if "state" in given else "it has no state; wanted"
            self._say((*place, "state"), f"{what}: {problem} {' or '.join(STATES)}")
        variants = self._variants(setting, given)
        names = ", ".join(variants)
        default = given.get("defaultVariant")
        if default is not None and (not isinstance(default, str) or default not in variants):
            problem = f"defaultVariant {shown(default)} is not among the variants {names}"
            self._say((*place, "defaultVariant"), f"{what}: {problem}")
        targeting = given.get("targeting", {})
        rule: Any = None
        if self._is_object(targeting, (*place, "targeting"), f"{what}: targeting") and targeting:
            rule = rules.whole(targeting, (*place, "targeting"))
        if rule is not None and variants:
            for outcome in outcomes(rule):
                if outcome is not None and variant_named(outcome) not in variants:
                    problem = f"targeting names {shown(outcome)}, which is not among the variants {names}"
                    self._say((*place, "targeting"), f"{what}: {problem}")
        line = self._positions.line(place)
        return FlagRule(setting.name, str(state), variants, default, rule or {}, is_timed(rule), line)

    def _variants(self, setting: Setting, given: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
        place: Place = ("flags", setting.name, "variants")
        what = f"flag {setting.name}"
        variants = given.get("variants")
        if not self._is_object(variants, place, f"{what}: variants"):
            return {}
        if not variants:
            self._say(place, f"{what}: it has no variants")
        made: dict[str, tuple[Any, Any]] = {}
        for name, value in variants.items():
            made[name] = (value, None)
            if not name:
                self._say((*place, name), f"{what}: a variant has no name")
            try:
                self._require_type(setting, value)
                made[name] = (value, setting.parse(value))
            except Exception as error:  # Rejected, or whatever the user's own validator raises
                problem = f"variant {name!r}={shown(value)}: {reason_of(error)}; {setting.name} takes {setting.allowed}"
                self._say((*place, name), f"{what}: {problem}")
        return made

    def _require_type(self, setting: Setting, value: object) -> None:
        """In JSON a number is written as a number, not as text that an environment variable would hold."""
        allowed, found = self._types[setting.name], type_in_json(value)
        if allowed and found not in allowed and not (found == "integer" and "number" in allowed):
            wanted = " or ".join(words for name, words in IN_WORDS.items() if name in allowed)
            raise Rejected(f"is {IN_WORDS[found]}, and in JSON it is written as {wanted}")

    def _why_no_flag(self, name: str) -> str:
        if name in self._settings:
            return f"flag {name}: it is a secret, and a secret cannot be a flag"
        owner = next((it.name for it in self._settings.values() if name in it.variables), None)
        close = nearest(name, [known for known, it in self._settings.items() if is_flaggable(it)])
        hint = "flags are named as the settings' fields are"
        if owner:
            hint = f"it is the environment name of {owner}"
        elif close:
            hint = f"did you mean {' or '.join(close)}?"
        return f"flag {shown(name)} is not a setting of {self._cls.__name__}; {hint}"

    def _check_metadata(self, owner: dict[str, Any], place: Place) -> None:
        metadata = owner.get("metadata", {})
        if self._is_object(metadata, (*place, "metadata"), "metadata"):
            for key, value in metadata.items():
                if not isinstance(value, str | int | float):  # bool is an int
                    problem = f"metadata {key!r}: {shown(value)} is not text, a number, true or false"
                    self._say((*place, "metadata", key), problem)

    def _require_known(self, owner: dict[str, Any], place: Place, known: Sequence[str], what: str) -> None:
        for key in owner:
            if key not in known:
                close = nearest(key, known)
                hint = f"did you mean {close[0]}?" if close else f"wanted {', '.join(known)}"
                self._say((*place, key), f"{shown(key)} is not {what}; {hint}")

    def _is_object(self, given: object, place: Place, what: str) -> TypeGuard[dict[str, Any]]:
        if not isinstance(given, dict):
            self._say(place, f"{what} is {IN_WORDS[type_in_json(given)]}; wanted an object")
        return isinstance(given, dict)

    def _say(self, place: Place, problem: str, line: int | None = None) -> None:
        line = self._positions.line(place) if line is None else line
        where = f"{self._path}" if line is None else f"{self._path}:{line}"
        self._errors.append((line or 0, f"{where}: {problem}"))


def _owner(place: Place) -> str:
    return f"flag {place[1]}, targeting" if place[0] == "flags" else f"$evaluators: {place[1]!r}"


def _shown_place(place: Place) -> str:
    return shown(".".join(map(str, place)))
