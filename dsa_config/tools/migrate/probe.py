"""Trying a parser in a child process first, because tree-sitter's grammar of bash can crash on hostile text."""

from __future__ import annotations

import faulthandler
import os
import warnings
from collections.abc import Callable


def survives(parse: Callable[[], object]) -> bool:
    """Whether a call comes back, and does not end its process. Where there is no fork, it is taken to."""
    if not hasattr(os, "fork"):
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a fork among threads: the child only parses, and takes no lock
        child = os.fork()
    if child == 0:  # pragma: no cover - a child's lines are counted by nobody
        try:
            faulthandler.disable()
            parse()
            os._exit(0)
        finally:  # nothing of the parent may run on in the child
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
