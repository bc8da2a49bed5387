"""Whether a contender's value follows the environment: found out by changing the environment, not by claim."""

from __future__ import annotations

import os
import warnings

from benchmarks.reads.contender import Subject, environment


def sees_change(subject: Subject) -> str | None:
    """`yes`, `no`, or which of its names a contender follows; None where asking makes no sense.

    Each name is set to 1, then to 0, with the others absent, and the value is read after each.
    """
    if not subject.variables:
        return None
    followed = [name for name in subject.variables if _follows(subject, name)]
    if len(followed) == len(subject.variables):
        return "yes"
    if followed == [subject.variables[0]]:
        return "canonical name only"
    return f"only {', '.join(followed)}" if followed else "no"


def _follows(subject: Subject, variable: str) -> bool:
    expression = compile(subject.statement, "<read>", "eval")
    names = dict(subject.names)
    read = []
    with warnings.catch_warnings(), subject.around(), environment(**dict.fromkeys(subject.variables)):
        warnings.simplefilter("ignore")  # deprecated names are set on purpose
        for text in ("1", "0", "1"):
            os.environ[variable] = text
            read.append(eval(expression, names))  # noqa: S307 - the contenders' own statements
    return read == [True, False, True]
