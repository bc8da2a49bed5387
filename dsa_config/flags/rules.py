"""Flags from a file in flagd's format, evaluated in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsa_config.declare import LiveSettings
from dsa_config.declared import settings_of
from dsa_config.errors import BadValue
from dsa_config.flags.context import EMPTY, TARGETING_KEY, FlagContext
from dsa_config.flags.document import FlagRule, read_flag_file
from dsa_config.flags.errors import FlagsExtraMissing

if TYPE_CHECKING:
    from openfeature.contrib.tools.flagd.core import FlagdCore

MOST_KEPT = 10_000
"""How many evaluations a flag set keeps; when there are more it starts anew."""


@dataclass(frozen=True, slots=True)
class Flagged:
    """What a flag says about its setting for one context.

    Attributes:
        given: the value as the flag has it.
        value: what the setting's parser makes of it.
        variant: the name of the value; None where the source has no names.
        reason: why this one: STATIC, TARGETING_MATCH, DEFAULT or another of OpenFeature's words.
        origin: where it came from, in words.
    """

    given: Any
    value: Any
    variant: str | None
    reason: str
    origin: str


@dataclass(frozen=True, eq=False)
class FlagSet:
    """The flags of one file, as they were when it was read. A changed file is a new set.

    Attributes:
        path: the file.
        names: the settings that the file has flags for.
        timed: those whose rules look at the time, so that each read evaluates them again.
    """

    path: Path
    names: tuple[str, ...]
    timed: frozenset[str]
    _cls: type[LiveSettings] = field(repr=False)
    _rules: Mapping[str, FlagRule] = field(repr=False)
    # Dictionaries whose single steps are atomic. Two threads may work out the same answer; nobody sees half of one.
    _kept: dict[tuple[str, FlagContext], Flagged | None] = field(default_factory=dict, repr=False)
    _evaluators: dict[int, FlagdCore] = field(default_factory=dict, repr=False)

    def evaluate(self, name: str, context: FlagContext = EMPTY) -> Flagged | None:
        """What the flag of a setting says for a context; None where it says nothing, so that weaker layers speak.

        Args:
            name: the setting's field.
            context: who asks.

        Raises:
            BadValue: the flag's rule cannot be evaluated, or names no variant.
        """
        rule = self._rules.get(name)
        if rule is None or rule.state == "DISABLED":
            return None
        if rule.is_timed:
            return self._evaluated(rule, context)
        key = (name, context)
        try:
            return self._kept[key]
        except KeyError:
            found = self._evaluated(rule, context)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[key] = found
        return found

    def _evaluated(self, rule: FlagRule, context: FlagContext) -> Flagged | None:
        from openfeature.evaluation_context import EvaluationContext

        attributes = {key: value for key, value in context.items() if key != TARGETING_KEY}
        asking = EvaluationContext(context.targeting_key, attributes)
        try:
            found = self._evaluator().resolve_string_value(rule.name, "", asking)
        except Exception as error:  # flagd raises OpenFeature's errors, and a rule's arithmetic any of Python's
            raise self._bad(rule, error) from error
        if found.variant is None:
            return None
        given, value = rule.variants[found.variant]
        reason = str(found.reason)
        return Flagged(
            given, value, found.variant, reason, self._origin(rule, f", variant {found.variant!r} ({reason})")
        )

    def _evaluator(self) -> FlagdCore:
        """The evaluator of flagd. One for each process: a fork must not inherit a lock that another thread held."""
        process = os.getpid()
        if process not in self._evaluators:
            core = _evaluator_class()()
            core.set_flags(self._document())
            self._evaluators[process] = core
        return self._evaluators[process]

    def _document(self) -> str:
        """The flags as the evaluator gets them: each variant's value is its name, so that values of any type pass."""
        flags = {
            rule.name: {
                "state": rule.state,
                "variants": {name: name for name in rule.variants},
                "defaultVariant": rule.default,
                "targeting": rule.targeting,
            }
            for rule in self._rules.values()
        }
        return json.dumps({"flags": flags})

    def _bad(self, rule: FlagRule, error: Exception) -> BadValue:
        told = getattr(error, "error_message", None) or str(error) or type(error).__name__
        return BadValue(
            name=rule.name,
            variable=None,
            given=rule.targeting,
            origin=self._origin(rule, ", targeting"),
            reason=f"the rule cannot be evaluated: {type(error).__name__}: {told}",
            allowed=f"{settings_of(self._cls)[rule.name].allowed}, from a variant: {', '.join(rule.variants)}",
        )

    def _origin(self, rule: FlagRule, detail: str) -> str:
        line = "" if rule.line is None else f":{rule.line}"
        return f"flag {rule.name} in {self.path}{line}{detail}"


def load_flags(path: str | os.PathLike[str], cls: type[LiveSettings]) -> FlagSet:
    """Read a flag file: all of it, or, if anything in it is wrong, none.

    Args:
        path: a JSON file in flagd's format.
        cls: the settings class whose fields the flags are named after.

    Raises:
        FlagFileError: the file cannot be read or something in it is wrong; the message has every error, with its line.
        FlagsExtraMissing: the evaluator is not installed.
    """
    _evaluator_class()
    rules = read_flag_file(Path(path), cls)
    timed = frozenset(name for name, rule in rules.items() if rule.is_timed)
    return FlagSet(Path(path), tuple(rules), timed, cls, rules)


def _evaluator_class() -> type[FlagdCore]:
    try:
        from openfeature.contrib.tools.flagd.core import FlagdCore
    except ImportError as error:
        raise FlagsExtraMissing("openfeature-flagd-core") from error
    return FlagdCore
