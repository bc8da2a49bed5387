"""An attribute of an ordinary object: the unit of every ratio."""

from __future__ import annotations

from benchmarks.reads.bars import PLAIN
from benchmarks.reads.contender import Contender, Subject


class Flags:
    """Holds the flag."""

    def __init__(self) -> None:
        self.fuse_topk = True


def _build() -> Subject:
    return Subject("flags.fuse_topk", {"flags": Flags()}, ("BENCH_PLAIN_FUSE_TOPK",))


CONTENDERS = (Contender(PLAIN, _build),)
