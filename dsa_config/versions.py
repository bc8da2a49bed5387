"""Versions of the project that declares settings: dotted numbers, compared as numbers."""

from __future__ import annotations

import re

from dsa_config.errors import DeclarationError

_VERSION = re.compile(r"v?([0-9]+(?:\.[0-9]+)*)([.+-]?[A-Za-z0-9.+-]*)?", re.ASCII)

Version = tuple[int, ...]


def version_of(text: str, what: str) -> Version:
    """The numbers of a version. Suffixes are left out, so that a release candidate of 1.0 already behaves like 1.0.

    Args:
        text: such as `1.0` or `0.9.2rc1`.
        what: whose version it is, for the error.

    Raises:
        DeclarationError: the text is no version.
    """
    match = _VERSION.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None:
        raise DeclarationError(f"{what}: {text!r} is not a version; wanted numbers with dots, such as 1.0")
    numbers = tuple(int(number) for number in match[1].split("."))
    while numbers and numbers[-1] == 0:  # 1.0 and 1.0.0 are the same version
        numbers = numbers[:-1]
    return numbers
