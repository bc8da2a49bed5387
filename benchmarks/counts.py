"""Numbers on a command line."""

from __future__ import annotations

import argparse


def count(text: str) -> int:
    """A number of at least 2: fewer samples have no median and no spread."""
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r}; wanted a number of at least 2")
    return int(text)
