"""A getter that keeps its first answer: what most engines do once the cost of the environment shows in a trace."""

from __future__ import annotations

import functools
import os

from benchmarks.reads.contender import Contender, Subject

VARIABLE = "BENCH_CACHED_FUSE_TOPK"


def _build() -> Subject:
    @functools.cache
    def fuse_topk() -> bool:
        return os.getenv(VARIABLE, "1") == "1"

    return Subject("fuse_topk()", {"fuse_topk": fuse_topk}, (VARIABLE,))


CONTENDERS = (Contender("functools.cache getter", _build),)
