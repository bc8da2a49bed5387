"""How the kernel of `attention_merge` is launched."""

from __future__ import annotations

from dataclasses import dataclass

_PROGRAMS = 16
"""Of a multiprocessor, to keep it reading: only where there are more, a program has more than one head."""

_MOST_HEADS = 8
"""Of a program: more save nothing that can be seen."""


@dataclass(frozen=True, slots=True)
class PortableLaunch:
    """Launch parameters of the portable kernel. None of them changes a bit of what comes out.

    Attributes:
        heads: heads a program, of one row, one after the other.
        channels: channels a program, a power of two.
        parts: parts read at once, a power of two.
        warps: warps a program.
    """

    heads: int
    channels: int
    parts: int
    warps: int


def portable_launch(parts: int, rows: int, heads: int, channels: int, *, multiprocessors: int) -> PortableLaunch:
    """The launch parameters for outputs of so many parts, rows, heads and channels: 16 values of a part a thread."""
    width = min(_power_of_two(channels), 512)
    most = max(1, min(rows * heads // (_PROGRAMS * multiprocessors), heads, _MOST_HEADS))
    each = _power_of_two(most + 1) // 2  # as many in each, where a row has 2^n
    return PortableLaunch(each, width, min(_power_of_two(parts), 8), warps=max(1, width // 512))


def _power_of_two(number: int) -> int:
    """The least power of two that is not less than a number."""
    return 1 << max(number - 1, 0).bit_length()
