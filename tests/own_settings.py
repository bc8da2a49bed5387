"""Live objects of a test's own, which nobody has read, and which are left as they were found."""

from __future__ import annotations

import warnings
from typing import Any

from dsa_config import LiveSettings, live

_made: list[Any] = []


def own(base: type[LiveSettings]) -> Any:
    """A new live object with the settings of a class."""
    made = live(type("Own", (base,), {}))
    _made.append(made)
    return made


def clean(*also: Any) -> None:
    """Take back what was set and loaded, in all that were made and in these."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to take a value back may be too late for it
        for it in (*_made, *also):
            it.reset()
            it.load()
            it.set_flag_context()
    _made.clear()
