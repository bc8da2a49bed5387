"""How long the kernels of this project take on one device, by the fits that come with the package."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from dsa_exec.planning.kernel_fit import Measured, fit_name, predicted_us
from dsa_exec.planning.kernel_terms import OPS, Work

FILE = "kernel_times.json"


@dataclass(frozen=True, slots=True)
class FitError:
    """How far a fit is from what it was made of.

    Attributes:
        name: the op, with the heads where there is a fit for each number of them.
        rows: measured times.
        median: of the relative errors without their signs: 0.05 is five percent. None where there is but one time,
            which the fit then is.
        worst: the largest of them, or None likewise.
        worst_at: where that is.
    """

    name: str
    rows: int
    median: float | None
    worst: float | None
    worst_at: Work


@dataclass(frozen=True, slots=True)
class KernelTimes:
    """The fits, and the measured times that they were made of.

    Attributes:
        device: on which.
        date: when.
        origin: the records.
        fits_us: microseconds of each term, by the name of the fit.
        measured: every time.
        runs: rows of runs on several GPUs, which no fit was made of; empty where there is no such record.
    """

    device: str
    date: str
    origin: tuple[str, ...]
    fits_us: Mapping[str, Mapping[str, float]]
    measured: tuple[Measured, ...]
    runs: tuple[Mapping[str, Any], ...]

    @property
    def most_keys(self) -> float:
        """The longest context that the indexer was measured with; beyond it its terms are continued."""
        return max(it.work.keys for it in self.measured)

    @property
    def most_requests(self) -> float:
        """The most requests of a decode step that were measured."""
        return max(it.work.rows for it in self.measured if it.op.endswith("decode"))

    def us(self, op: str, work: Work) -> float:
        """What a call takes, in microseconds. Attention's heads are padded to a number that was measured."""
        heads, times = work.heads, 1
        if op not in self.fits_us:
            known = self._heads(op)
            heads = next((it for it in known if it >= heads), known[-1])
            times = -(-work.heads // known[-1])  # more than were measured: call after call
        return times * predicted_us(op, self.fits_us[fit_name(op, heads)], work)

    def errors(self) -> tuple[FitError, ...]:
        """How far each fit is from its measured times."""
        groups: dict[str, list[Measured]] = {}
        for it in self.measured:
            groups.setdefault(fit_name(it.op, it.work.heads), []).append(it)
        found = []
        order = list(OPS)
        for name, rows in sorted(groups.items(), key=lambda it: (order.index(it[1][0].op), it[1][0].work.heads)):
            errors = [abs(predicted_us(it.op, self.fits_us[name], it.work) / it.us - 1) for it in rows]
            worst, several = max(errors), len(rows) > 1
            median = statistics.median(errors) if several else None
            where = rows[errors.index(worst)].work
            found.append(FitError(name, len(rows), median, worst if several else None, where))
        return tuple(found)

    def _heads(self, op: str) -> list[int]:
        return sorted({it.work.heads for it in self.measured if it.op == op})


@functools.cache
def kernel_times() -> KernelTimes:
    """The times that come with the package, of one H100."""
    document = json.loads((resources.files("dsa_exec.planning") / FILE).read_text("utf-8"))
    measured = tuple(Measured(op, Work(rows, keys, heads), us) for op, rows, keys, heads, us in document["measured"])
    origin, runs = tuple(document["from"]), tuple(document["runs"])
    return KernelTimes(document["device"], document["date"], origin, document["fits_us"], measured, runs)
