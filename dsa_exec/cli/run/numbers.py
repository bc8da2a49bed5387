"""Numbers of options, which are texts until here, so that what is no number is told in one sentence with the text."""

from __future__ import annotations

import re

from dsa_exec.cli.run.errors import RunError

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")


def whole_number(option: str, text: str, *, least: int, most: int | None = None) -> int:
    """The whole number that a text says.

    Args:
        option: where the text came from, for the error.
        text: digits, perhaps with a sign.
        least: the smallest that is taken.
        most: the largest that is taken, if there is one.

    Raises:
        RunError: it is no such number.
    """
    number = int(text) if _WHOLE.fullmatch(text.strip()) else None
    if number is None or number < least or (most is not None and number > most):
        upper = "" if most is None else f" and at most {most}"
        raise RunError(f"{option} {text or repr(text)}: wanted a whole number of at least {least}{upper}")
    return number


def number(option: str, text: str) -> float:
    """The number that a text says, as Python writes numbers. Its range is for the caller to check.

    Raises:
        RunError: it is no number.
    """
    try:
        return float(text)
    except ValueError:
        raise RunError(f"{option} {text or repr(text)}: wanted a number") from None
