"""Targeting rules: what is wrong with one, as far as it can be seen before it is evaluated, and what it may give.

flagd's evaluator logs most mistakes and goes on with the default variant. A rule that passes here has none of those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsa_config.errors import nearest, shown
from dsa_config.flags.context import RESERVED, TARGETING_KEY
from dsa_config.flags.operators import (
    LARGEST_WEIGHT,
    OPERATORS,
    OVER_ITEMS,
    VERSION_RELATIONS,
    arguments_of,
    unknown_operator,
)
from dsa_config.flags.positions import Place

DEEPEST_RULE = 64
LARGEST_RULE = 10_000

_NUMBER = r"(?:0|[1-9][0-9]*)"
_VERSION = re.compile(rf"[vV]?{_NUMBER}(?:\.{_NUMBER}){{0,2}}(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?", re.ASCII)


@dataclass(slots=True)
class RuleCheck:
    """Goes through the rules of one file; what is wrong gathers in `problems`, each with its place, and once.

    Attributes:
        evaluators: the shared rules of the file, by name.
        problems: what is wrong so far; a dict for its order and because a shared rule is met more than once.
    """

    evaluators: Mapping[str, object]
    problems: dict[tuple[Place, str], None] = field(default_factory=dict)
    _nodes: int = 0

    def whole(self, rule: object, place: Place) -> Any:
        """A rule with its `$ref`s replaced, ready for the evaluator.

        flagd's evaluator replaces them in the text, by a pattern that trips over backslashes and does not see cycles.
        """
        self._nodes = 0
        return self._built(rule, place, (), DEEPEST_RULE)

    def _say(self, place: Place, problem: str) -> None:
        self.problems[place, problem] = None

    def _built(self, rule: object, place: Place, open_refs: tuple[str, ...], depth: int) -> Any:
        self._nodes += 1
        if depth == 0 or self._nodes > LARGEST_RULE:
            limit = f"nested more than {DEEPEST_RULE} deep" if depth == 0 else f"larger than {LARGEST_RULE} parts"
            self._say(place, f"the rule is {limit}, with its $refs replaced")
            return None
        if isinstance(rule, list):
            return [self._built(item, (*place, at), open_refs, depth - 1) for at, item in enumerate(rule)]
        if not isinstance(rule, dict):
            return rule
        if len(rule) != 1:
            self._say(place, f"{shown(rule)} is no rule: wanted one operator and its arguments")
            return None
        (name, given), *_ = rule.items()
        if name == "$ref":
            return self._referred(given, place, open_refs, depth)
        if name not in OPERATORS:
            self._say((*place, name), unknown_operator(name))
            return None
        problems_before = len(self.problems)
        arguments = arguments_of(self._built(given, (*place, name), open_refs, depth - 1))
        if len(self.problems) > problems_before:  # what could be said of the whole would only repeat it
            return None
        operator = OPERATORS[name]
        if len(arguments) < operator.least or (operator.most is not None and len(arguments) > operator.most):
            self._say((*place, name), f"{name} takes {operator.takes}, not {len(arguments)}")
            return None
        problems = list(_problems_of(name, arguments))
        for problem in problems:
            self._say((*place, name), problem)
        return None if problems else _quiet(name, arguments)

    def _referred(self, name: object, place: Place, open_refs: tuple[str, ...], depth: int) -> Any:
        if not isinstance(name, str) or name not in self.evaluators:
            close = nearest(name, self.evaluators) if isinstance(name, str) else []
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(self.evaluators) or 'none'}"
            self._say(place, f"$ref: {shown(name)} is not in $evaluators; {hint}")
            return None
        if name in open_refs:
            self._say(place, f"$ref: {' -> '.join((*open_refs, name))} is a circle")
            return None
        return self._built(self.evaluators[name], ("$evaluators", name), (*open_refs, name), depth - 1)


def outcomes(rule: object) -> Iterator[object]:
    """What a checked rule may give, as far as that can be seen: the literal values of its branches."""
    if not isinstance(rule, dict):
        yield rule
        return
    ((name, arguments),) = rule.items()
    if name in ("if", "?:"):
        for branch in [*arguments[1::2], *(arguments[-1:] if len(arguments) % 2 else [])]:
            yield from outcomes(branch)
    elif name == "fractional":
        for fraction in arguments if isinstance(arguments[0], list) else arguments[1:]:
            yield from outcomes(fraction[0])
    elif OPERATORS[name].is_boolean:
        yield from (True, False)


def is_timed(rule: object) -> bool:
    """Whether a checked rule may look at the time, so that what it gives must not be kept."""
    if isinstance(rule, list):
        return any(is_timed(item) for item in rule)
    if not isinstance(rule, dict):
        return False
    ((name, arguments),) = rule.items()
    if name in ("var", "missing", "missing_some"):
        names = [it for argument in arguments for it in arguments_of(argument)] or [""]
        return any(not _is_timeless(it) for it in names) if name != "var" else not _is_timeless(names[0])
    if name in OVER_ITEMS:  # the second argument sees an item; an item that is the time is seen in the first
        return is_timed([arguments[0], *arguments[2:]])
    return is_timed(arguments)


def _is_timeless(key: object) -> bool:
    """A key that is written out, and names neither flagd's own facts nor the whole context."""
    if not isinstance(key, str):
        return isinstance(key, int | float)
    return key != "" and (key == f"{RESERVED}.flagKey" or key.split(".")[0] != RESERVED)


def _problems_of(name: str, arguments: list[Any]) -> Iterator[str]:
    if name == "fractional":
        yield from _fraction_problems(arguments)
    elif name in ("starts_with", "ends_with"):
        for argument in arguments:
            if not isinstance(argument, str | dict):
                yield f"{name} takes two texts, not {shown(argument)}"
    elif name == "sem_ver":
        for version in (arguments[0], arguments[2]):
            if not isinstance(version, dict) and not _VERSION.fullmatch(str(version)):
                yield f"sem_ver: {shown(version)} is not a version such as 1.2.3"
        if not isinstance(arguments[1], dict) and arguments[1] not in VERSION_RELATIONS:
            yield f"sem_ver: {shown(arguments[1])} is none of {' '.join(VERSION_RELATIONS)}"


def _fraction_problems(arguments: list[Any]) -> Iterator[str]:
    fractions = arguments
    if not isinstance(arguments[0], list):
        fractions = arguments[1:]
        if isinstance(arguments[0], dict) and not {"merge", "map", "filter", "missing"}.isdisjoint(arguments[0]):
            yield "fractional: what it hashes is a list, which would be taken for a variant; join texts with cat"
    weights: list[int] = []
    for fraction in fractions:
        if not isinstance(fraction, list) or len(fraction) not in (1, 2):
            yield f"fractional: {shown(fraction)} is not [variant] or [variant, weight]"
            return
        weight = fraction[1] if len(fraction) == 2 else 1
        if isinstance(weight, dict):
            return  # worked out at evaluation
        if not isinstance(weight, int) or isinstance(weight, bool) or weight < 0:
            yield f"fractional: the weight {shown(weight)} of {shown(fraction[0])} is not an integer of at least 0"
            return
        weights.append(weight)
    if not 0 < sum(weights) <= LARGEST_WEIGHT:
        yield f"fractional: the weights add up to {sum(weights)}; wanted 1 to {LARGEST_WEIGHT}"


def _quiet(name: str, arguments: list[Any]) -> dict[str, Any]:
    """The rule; where it needs a fact that a context may lack, the same with nothing as its answer then.

    That is what the evaluator answers too, with an error in the log for every context.
    """
    rule = {name: arguments}
    if name == "fractional":
        needed = {"var": [TARGETING_KEY]} if isinstance(arguments[0], list) else arguments[0]
    elif name == "sem_ver":
        needed = arguments[0]
    else:
        return rule
    return {"if": [{"===": [needed, None]}, None, rule]} if isinstance(needed, dict) else rule
