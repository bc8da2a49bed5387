"""Our sealed read: a plain object whose attributes are kept current by whoever writes."""

from __future__ import annotations

from benchmarks.reads.bars import SEALED
from benchmarks.reads.contender import Contender, Subject
from benchmarks.reads.contenders.ours_pull import names_of, ours


def _build() -> Subject:
    """Of a setting that has never been overridden: only such a one is a plain attribute."""
    return Subject("hot.sealed_one", {"hot": ours.sealed()}, names_of("sealed_one"))


CONTENDERS = (Contender(SEALED, _build),)
