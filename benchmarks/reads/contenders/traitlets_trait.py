"""traitlets: a validated attribute of an ordinary object."""

from __future__ import annotations

from benchmarks.reads.contender import Contender, Subject


def _build() -> Subject:
    from traitlets import Bool, HasTraits

    class Flags(HasTraits):
        fuse_topk = Bool(True)

    return Subject("flags.fuse_topk", {"flags": Flags()}, ("BENCH_TRAITLETS_FUSE_TOPK",))


CONTENDERS = (Contender("traitlets trait", _build, library="traitlets"),)
