"""What our reads must reach, as data, and whether they do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

PLAIN = "plain attribute"
PULL = "ours: settings.x, no name set"
PULL_CANONICAL = "ours: canonical name set"
PULL_DEPRECATED = "ours: only deprecated name set"
PULL_ELSEWHERE = "ours: another thread overrides"
SEALED = "ours: sealed"
OVERRIDE = "ours: settings.override"
SGLANG_ALIAS = "SGLang style EnvBoolWithAlias, none set"
IMPORT = "import dsa_config, beyond pydantic-settings"

TIMES_PLAIN = 26 if sys.version_info < (3, 12) else 20


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit on one row: on its nanoseconds, or on its ratio to another row.

    Attributes:
        row: what is limited.
        limit: the number that must not be passed.
        over: the row that is the unit; without one the unit is a nanosecond.
        at_least: the number is the least allowed, not the most.
    """

    row: str
    limit: float
    over: str | None = None
    at_least: bool = False

    def __str__(self) -> str:
        bound = f"{'at least' if self.at_least else 'at most'} {self.limit:,.4g}"
        return f"{self.row}: {bound} {'ns' if self.over is None else f'x {self.over}'}"

    def judge(self, medians: Mapping[str, float]) -> Verdict:
        """Hold the bar against what was measured.

        Args:
            medians: nanoseconds by row; a row that is not there misses its bar.
        """
        absent = [row for row in (self.row, self.over) if row is not None and row not in medians]
        if absent:
            return Verdict(self, None, met=False)
        value = medians[self.row] / (1 if self.over is None else medians[self.over])
        return Verdict(self, value, met=value >= self.limit if self.at_least else value <= self.limit)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar, what was measured for it (None: nothing), and whether it is met."""

    bar: Bar
    value: float | None
    met: bool

    def __str__(self) -> str:
        found = "not measured" if self.value is None else f"{self.value:,.4g}"
        return f"{'met' if self.met else 'MISSED'}: {self.bar}; found {found}"


BARS = (
    Bar(PULL, TIMES_PLAIN, over=PLAIN),
    Bar(PULL_CANONICAL, TIMES_PLAIN, over=PLAIN),
    Bar(PULL_DEPRECATED, TIMES_PLAIN, over=PLAIN),
    Bar(SGLANG_ALIAS, 8, over=PULL, at_least=True),
    Bar(SEALED, 1.6, over=PLAIN),
    Bar(PULL_ELSEWHERE, 40, over=PLAIN),
    Bar(OVERRIDE, 1_000),
    Bar(IMPORT, 40_000_000),
)
