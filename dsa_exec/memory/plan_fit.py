"""The largest number of tokens whose pools fit."""

from __future__ import annotations

import math
from collections.abc import Callable

from dsa_exec.memory.plan_choices import Choices, Stage
from dsa_exec.memory.pools_v4 import admission_tokens


def fitting_tokens(choices: Choices, stage: Stage) -> int:
    """The tokens of context, whole pages, whose pools fit in a stage's memory: 0 if not even one page does.

    Bytes never fall when a page is added, so the answer is found by halving: all below it fit, none above.
    """
    page = choices.page_tokens

    def fits(pages: int) -> bool:
        return choices.bytes(stage, pages * page) <= stage.memory_bytes

    most = None if choices.options.max_tokens is None else choices.options.max_tokens // page
    return largest(fits, most) * page


def least_tokens(choices: Choices) -> int:
    """The least tokens of context with which a rank can serve a request: a page, and in V4 room for its window."""
    page = choices.page_tokens
    if not choices.geometry.compressed:
        return page
    needed, ratio = admission_tokens(choices.geometry, choices.options, page), choices.options.swa_ratio
    return -(-math.ceil(needed / ratio) // page) * page


def largest(fits: Callable[[int], bool], most: int | None) -> int:
    """The largest number from 1 to `most` for which something fits that also fits for all smaller ones; 0 if none is.

    Args:
        fits: whether it does; asked for numbers above 0 only. Without `most` it must fail for some number.
        most: the largest number to look at, or None.
    """
    if most is None:
        most = 1
        while fits(most):
            most *= 2
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low
