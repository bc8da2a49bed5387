"""Numbers as people write them: sizes (`141GiB`, `80GB`), counts (`8192`, `8K`), fractions (`0.9`)."""

from __future__ import annotations

import re
from fractions import Fraction

from dsa_exec.core.errors import DsaError

_POWERS = ("K", "M", "G", "T")
_UNITS = {
    "": 1,
    "B": 1,
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate(_POWERS, 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(_POWERS, 1)},
}
_COUNT_UNITS = {"": 1, "K": 1024, "M": 1024 * 1024}
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?) ?([A-Za-z]*)")
_COUNT = re.compile(r"([0-9]{1,20})([KkMm]?)")
_FRACTION = re.compile(r"[0-9]{1,20}(?:\.[0-9]{1,20})?|\.[0-9]{1,20}")

MOST_BYTES = 2**50
"""More than any device has; larger numbers are slips."""

MOST = 2**31 - 1
"""Positions are int32."""

SIZES = "a number of bytes, or a number with KiB, MiB, GiB, TiB (powers of 1024) or KB, MB, GB, TB (powers of 1000)"


class BadOption(DsaError, ValueError):
    """An option whose text is not what the option takes: `option`, `text`, `reason`, `wanted`."""

    def __init__(self, option: str, text: str, reason: str, wanted: str) -> None:
        self.option = option
        self.text = text
        self.reason = reason
        self.wanted = wanted
        super().__init__(f"{option} {text!r}: {reason}; wanted {wanted}")


def size_of(option: str, text: str, *, least: int = 1) -> int:
    """The bytes that a text says.

    Args:
        option: where the text came from, for the error.
        text: a number, then a unit or nothing. Units are the same in upper and lower case, and a blank may stand before
            them. A part of a byte is dropped. `G` alone is no unit: people mean both.
        least: the smallest size that makes sense, in bytes.

    Raises:
        BadOption: it is no size, or smaller than `least`, or larger than any device has.
    """
    written = _SIZE.fullmatch(text.strip())
    if written is None:
        raise BadOption(option, text, "is no size", SIZES)
    number, unit = written.groups()
    if unit.upper() not in _UNITS:
        raise BadOption(option, text, f"{unit!r} is no unit", SIZES)
    if _UNITS[unit.upper()] == 1 and "." in number:
        raise BadOption(option, text, "has a part of a byte", SIZES)
    bytes_ = int(Fraction(number) * _UNITS[unit.upper()])
    if bytes_ < least:
        raise BadOption(option, text, f"is less than {least} byte", SIZES)
    if bytes_ > MOST_BYTES:
        raise BadOption(option, text, "is more than any device has", SIZES)
    return bytes_


def count_of(option: str, text: str, *, least: int = 1, most: int = MOST) -> int:
    """The number of tokens, rows or ranks that a text says: `8192`, or `8K` for the same.

    Raises:
        BadOption: it is no whole number, or out of range.
    """
    written = _COUNT.fullmatch(text.strip())
    number, unit = written.groups() if written else ("", "")
    wanted = f"a whole number from {least} to {most} (after it, K means 1024 and M 1024 * 1024)"
    if not written:
        raise BadOption(option, text, "is no such number", wanted)
    count = int(number) * _COUNT_UNITS[unit.upper()]
    if not least <= count <= most:
        raise BadOption(option, text, "is out of range", wanted)
    return count


def counts_of(option: str, text: str, *, most: int = MOST) -> tuple[int, ...]:
    """The numbers of a list such as `1K,8K,32768`, each once, in order of size.

    Raises:
        BadOption: a part of it is no whole number of at least 1, or out of range.
    """
    return tuple(sorted({count_of(option, part, most=most) for part in text.split(",")}))


def fraction_of(option: str, text: str) -> Fraction:
    """The share that a text says, exactly.

    Raises:
        BadOption: it is no decimal number above 0 and at most 1.
    """
    wanted = "a number above 0 and at most 1, such as 0.9"
    if not _FRACTION.fullmatch(text.strip()):
        raise BadOption(option, text, "is no such number", wanted)
    share = Fraction(text.strip())
    if not 0 < share <= 1:
        raise BadOption(option, text, "is out of range", wanted)
    return share


def count_words(tokens: int) -> str:
    """A number of tokens for people: `8K` for 8192, and `200000` as it is."""
    for unit, factor in (("M", 1024 * 1024), ("K", 1024)):
        if tokens >= factor and tokens % factor == 0:
            return f"{tokens // factor}{unit}"
    return str(tokens)
