"""The operators of targeting rules: JSON logic's, and flagd's own."""

from __future__ import annotations

from dataclasses import dataclass

from dsa_config.errors import nearest


@dataclass(frozen=True, slots=True)
class Operator:
    """How many arguments an operator takes, and whether what it gives can only be true or false."""

    least: int
    most: int | None
    is_boolean: bool = False

    @property
    def takes(self) -> str:
        """The number of arguments, in words."""
        if self.most == self.least:
            return f"{self.least} argument" + ("s" if self.least > 1 else "")
        if self.most is None:
            return f"{self.least} or more arguments"
        return f"{self.least} to {self.most} arguments"


OPERATORS = {
    "if": Operator(1, None),
    "?:": Operator(3, 3),
    "and": Operator(1, None),
    "or": Operator(1, None),
    "!": Operator(1, 1, is_boolean=True),
    "!!": Operator(1, 1, is_boolean=True),
    "==": Operator(2, 2, is_boolean=True),
    "===": Operator(2, 2, is_boolean=True),
    "!=": Operator(2, 2, is_boolean=True),
    "!==": Operator(2, 2, is_boolean=True),
    "<": Operator(2, 3, is_boolean=True),
    "<=": Operator(2, 3, is_boolean=True),
    ">": Operator(2, 3, is_boolean=True),
    ">=": Operator(2, 3, is_boolean=True),
    "in": Operator(2, 2, is_boolean=True),
    "var": Operator(0, 2),
    "missing": Operator(0, None),
    "missing_some": Operator(2, 2),
    "map": Operator(2, 2),
    "filter": Operator(2, 2),
    "reduce": Operator(3, 3),
    "all": Operator(2, 2, is_boolean=True),
    "some": Operator(2, 2, is_boolean=True),
    "none": Operator(2, 2, is_boolean=True),
    "merge": Operator(0, None),
    "cat": Operator(0, None),
    "substr": Operator(2, 3),
    "+": Operator(1, None),
    "-": Operator(1, 2),
    "*": Operator(1, None),
    "/": Operator(2, 2),
    "%": Operator(2, 2),
    "min": Operator(1, None),
    "max": Operator(1, None),
    "fractional": Operator(1, None),
    "starts_with": Operator(2, 2),
    "ends_with": Operator(2, 2),
    "sem_ver": Operator(3, 3),
}

LEFT_OUT = {"log": "it would print to standard output whenever a setting is read"}
"""Operators that flagd has and a flag file may not use, and why."""

OVER_ITEMS = frozenset({"map", "filter", "reduce", "all", "some", "none"})
"""Operators whose second argument sees one item of a list, not the context."""

VERSION_RELATIONS = ("=", "!=", "<", "<=", ">", ">=", "^", "~")
"""What `sem_ver` takes between two versions."""

LARGEST_WEIGHT = 2**31 - 1
"""The largest sum of the weights of a `fractional`."""


def arguments_of(given: object) -> list[object]:
    """The arguments of an operator: a single one may stand without a list."""
    return given if isinstance(given, list) else [given]


def unknown_operator(name: str) -> str:
    """What there is to say about an operator that does not exist, or is left out."""
    if name in LEFT_OUT:
        return f"the operator {name!r} is not allowed: {LEFT_OUT[name]}"
    close = nearest(name, OPERATORS)
    hint = f"did you mean {' or '.join(close)}?" if close else f"wanted one of {' '.join(OPERATORS)}"
    return f"there is no operator {name!r}; {hint}"
