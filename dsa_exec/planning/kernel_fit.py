"""From measured times to microseconds a term: least squares of relative errors, none of the terms negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dsa_exec.planning.kernel_terms import BY_HEADS, OPS, Work

DIGITS = 5
"""Significant digits that a fit keeps: more than any time was measured to, and the same on every machine."""


class Measured(NamedTuple):
    """One measured time.

    Attributes:
        op: a name of `OPS`.
        work: what was called.
        us: the median, in microseconds.
    """

    op: str
    work: Work
    us: float


def fits_of(measured: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """The microseconds of every term: by op, or by op and heads (`sparse_mla_decode, 16 heads`).

    Args:
        measured: at least one for each op.
    """
    groups: dict[str, list[Measured]] = {}
    for it in measured:
        groups.setdefault(fit_name(it.op, it.work.heads), []).append(it)
    return {name: _fit(group) for name, group in groups.items()}


def fit_name(op: str, heads: int) -> str:
    """Which fit a call has."""
    return f"{op}, {heads} heads" if op in BY_HEADS else op


def predicted_us(op: str, fit: Mapping[str, float], work: Work) -> float:
    """What a fit says, in microseconds."""
    return sum(us * OPS[op][term](work) for term, us in fit.items())


def _fit(group: Sequence[Measured]) -> dict[str, float]:
    terms = OPS[group[0].op]
    # Each row divided by what was measured: a tenth too much counts the same for a short call and for a long one.
    columns = {name: [of(it.work) / it.us for it in group] for name, of in terms.items()}
    kept = list(columns)
    while True:
        factors = _least_squares([columns[name] for name in kept])
        worst = min(range(len(kept)), key=lambda place: factors[place])
        if factors[worst] >= 0:
            break
        kept.pop(worst)
    found = dict(zip(kept, factors, strict=True))
    return {name: float(f"{found.get(name, 0.0):.{DIGITS}g}") for name in columns}


def _least_squares(columns: Sequence[Sequence[float]]) -> list[float]:
    """Factors with which the columns add up to 1 in every row, as nearly as can be: by the normal equations."""
    scales = [max(map(abs, column)) for column in columns]
    scaled = [[value / scale for value in column] for column, scale in zip(columns, scales, strict=True)]
    size = len(scaled)
    rows = [[_dot(one, other) for other in scaled] + [sum(one)] for one in scaled]
    for place in range(size):
        pivot = max(range(place, size), key=lambda row: abs(rows[row][place]))
        rows[place], rows[pivot] = rows[pivot], rows[place]
        for row in range(size):
            if row != place:
                factor = rows[row][place] / rows[place][place]
                rows[row] = [a - factor * b for a, b in zip(rows[row], rows[place], strict=True)]
    return [rows[place][size] / rows[place][place] / scales[place] for place in range(size)]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
